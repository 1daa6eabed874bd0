"""One function per stream: labeled, paired and plain batches, and sheets of what they yield."""
