"""What labelling tools draw: polygons, runs and brushes, read into masks and written from them."""
