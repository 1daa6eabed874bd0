"""What a run leaves behind: its folder, its rows, what it was made of; written and read again."""
