"""The verbs that train and use networks, a file each or a family."""
