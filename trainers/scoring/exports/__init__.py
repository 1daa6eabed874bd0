"""Released weights, and graphs of networks that run without WarpSeg."""
