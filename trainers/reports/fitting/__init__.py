"""What `warpseg fit` tells in the end: a verdict in plain words, and its page."""
