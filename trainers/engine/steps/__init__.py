"""How a step is launched: many tensors at once, and the whole of it as one graph."""
