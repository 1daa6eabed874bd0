"""Ask trained networks: protocols, predictions, scores, exports."""
