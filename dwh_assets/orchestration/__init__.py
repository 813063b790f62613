"""What Dagster sees: resources, IO managers, partition mapping, metadata, checks and runs."""
