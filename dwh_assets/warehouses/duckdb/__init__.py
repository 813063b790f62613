"""Replicas in DuckDB databases."""
