"""Logs, progress and warnings of a run."""
