"""What is measured of a matrix of distances: how tree-like it is, and how well an embedding keeps it."""
