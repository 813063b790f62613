"""One Iceberg table: catalogs, write, commit, scan, versions."""
