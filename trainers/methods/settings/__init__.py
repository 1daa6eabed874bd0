"""What each method can be told, a file each; importable without torch, for recipes and help."""
