"""The words of `warpseg bench NAME`, a dataclass each; importable without torch."""
