"""Other models of hyperbolic space than the hyperboloid and the ball, with isometries between them."""
