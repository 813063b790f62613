"""Stores of a hadoop catalog's files: local, HDFS, S3, Google Cloud and Azure."""
