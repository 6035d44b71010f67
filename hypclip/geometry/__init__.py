"""Hyperbolic geometry as pure functions on tensors, float32 or float64, differentiable, batched."""
