"""Assets, runs and the demo through a real Dagster instance, on a real catalog and local files."""
