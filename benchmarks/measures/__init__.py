"""What `warpseg bench` measures, a file each."""
