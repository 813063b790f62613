"""What exactly changed between two versions of a table: rows, columns, and how the table is kept."""
