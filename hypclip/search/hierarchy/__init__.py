"""Queries of the hierarchy over any store: traversal, common ancestors, means, order."""
