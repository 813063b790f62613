"""Tests of versions: branches, audits, publishing."""
