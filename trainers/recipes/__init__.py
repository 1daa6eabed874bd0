"""Named settings: one recipe per published experiment."""
