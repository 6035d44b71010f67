"""Quickstart data: drawings by several studios, composed into captioned scenes with grounded phrases."""
