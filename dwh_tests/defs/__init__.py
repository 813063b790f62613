"""The lakehouse that the repository ships with."""
