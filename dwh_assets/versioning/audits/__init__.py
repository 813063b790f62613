"""What has to be true of a table's new version before it is published."""
