"""Replicas in Snowflake."""
