"""What WarpSeg is measured against: plain PyTorch and the usual loaders."""
