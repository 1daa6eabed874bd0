"""Heads: features become logits at the output stride."""
