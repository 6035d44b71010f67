"""Parts of a training loop: optimiser, gathering across processes, resumable state, metrics."""
