"""How a step is run and launched: by stages, many tensors at once, the whole of it as one graph."""
