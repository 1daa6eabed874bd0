"""Which images of a data set are labeled, which held out: drawn, listed, by groups, grown."""
