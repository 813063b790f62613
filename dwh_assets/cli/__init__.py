"""The `dwh` command: versions of tables, for somebody who has only a terminal."""
