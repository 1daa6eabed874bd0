"""One file per method, and what methods share."""
