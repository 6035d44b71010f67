"""Weights that others trained: the published hyperbolic models as ours, and ordinary CLIPs to start from."""
