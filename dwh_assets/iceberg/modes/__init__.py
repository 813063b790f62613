"""What each write mode does to a version of a table."""
