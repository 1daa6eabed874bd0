"""The verbs on data sets."""
