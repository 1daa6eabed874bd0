"""What trains and leaves a folder behind."""
