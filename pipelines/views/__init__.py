"""What a view is made of: geometry and changes of colour."""
