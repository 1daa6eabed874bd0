"""What a training step costs, measured or followed: constant batches, bytes held."""
