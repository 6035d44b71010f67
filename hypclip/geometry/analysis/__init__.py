"""Measures of distance matrices: Gromov δ-hyperbolicity, and the distortion of an embedding."""
