"""The embedded backend: SQLite in WAL mode, one process, one writer thread."""
