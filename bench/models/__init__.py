"""Models: the registry with cards, the embedded zoo, and loading a model of the user."""
