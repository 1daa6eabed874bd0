"""The steps of the verb `fit`, and how they run other verbs."""
