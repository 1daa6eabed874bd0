"""Masks written as labelling tools read them, a module each."""
