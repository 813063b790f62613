"""Catalogs: load one of five kinds, and the kind of our own that is only files."""
