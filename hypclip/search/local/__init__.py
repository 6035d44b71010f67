"""A vector store for one process: SQLite keeps the points, arrays in memory search them."""
