"""Copies of Iceberg tables in warehouses: each at a known snapshot, brought there in one transaction."""
