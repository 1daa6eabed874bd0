"""Images of any channels and of 8 or 16 bits: what they are, TIFF and NPY read and written."""
