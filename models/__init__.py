"""Networks that return logits at their own output stride."""
