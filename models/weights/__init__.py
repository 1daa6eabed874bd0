"""Weights of this and of other projects: read, renamed, loaded, and said what was."""
