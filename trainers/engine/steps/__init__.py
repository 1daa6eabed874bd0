"""How a step is launched: what it does to many tensors at once, and the whole of it as one graph."""
