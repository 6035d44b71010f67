"""A vector store in Qdrant; it needs the extra `search`."""
