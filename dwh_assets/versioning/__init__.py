"""Versions of tables: names, time travel, comparison, publishing, getting back, releases, lineage."""
