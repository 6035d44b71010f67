"""What a training loop is made of: optimiser, gathering across processes, resumable state, metrics."""
