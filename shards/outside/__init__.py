"""What comes from elsewhere: files and their names, texts and JSON, encoded images."""
