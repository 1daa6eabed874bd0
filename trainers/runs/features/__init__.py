"""Features of a frozen encoder: made once, trained on often."""
