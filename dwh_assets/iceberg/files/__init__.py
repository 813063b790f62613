"""Rows into Parquet files: partitioned, sorted, of the target size; and position deletes."""
