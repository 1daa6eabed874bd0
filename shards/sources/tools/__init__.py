"""What labelling tools export: one file per tool or layout."""
