"""Images beyond the memory: read, labeled and written by windows."""
