"""What reads labels off logits: pseudo-labels, confusion matrices, quantiles."""
