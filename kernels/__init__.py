"""Fused pixel operations on stride-s logits, each with its plain PyTorch reference."""
