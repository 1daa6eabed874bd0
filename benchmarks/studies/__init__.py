"""Short trainings on drawn scenes that show what a means brings, losses as well as wins."""
