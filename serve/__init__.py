"""The HTTP server: embeds, searches and classifies with one model."""
