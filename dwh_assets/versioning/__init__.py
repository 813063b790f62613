"""Versions of tables: named, read, told of."""
