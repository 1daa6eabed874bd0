"""What is wrong with a data set: masks in doubt, images twice, classes that crops lose."""
