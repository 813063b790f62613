"""Versions of tables: branches, audits, publishing."""
