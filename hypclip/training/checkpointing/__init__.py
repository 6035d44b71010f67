"""Checkpoints that a run goes on from: their state, how they are written, and the output directory that holds them."""
