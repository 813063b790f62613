"""Arrow data on its way in: sources, frames, and the types that Iceberg knows."""
