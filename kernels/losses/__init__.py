"""Pixel losses on logits at their own stride."""
