"""Where samples come from: DALI, the portable loader, caches."""
