"""The command `dwh`, on real catalogs."""
