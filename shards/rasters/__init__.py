"""Image files read by windows, packed with all their channels, and cut into tiles."""
