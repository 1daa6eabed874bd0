"""Processes: one a folder, signals as wishes, children that end with us, ranks that say why."""
