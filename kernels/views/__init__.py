"""What turns images into views: crops, photometric changes, warps, boxes."""
