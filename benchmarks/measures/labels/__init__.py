"""What labels are worth: found, doubted, suggested."""
