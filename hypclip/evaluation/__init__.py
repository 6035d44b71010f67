"""Evaluations; each yields (name, value) pairs."""
