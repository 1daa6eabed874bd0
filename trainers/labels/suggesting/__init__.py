"""Which images of a pool to draw masks for next."""
