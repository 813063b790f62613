"""Versions of tables: named, read, compared, published, released, brought back; and what made them."""
