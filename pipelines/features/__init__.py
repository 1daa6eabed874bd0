"""Batches whose images an encoder has seen already: to records, and from them."""
