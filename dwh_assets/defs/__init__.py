"""The lakehouse that this repository ships with, one folder a namespace, declared in YAML."""
