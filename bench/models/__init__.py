"""Models: their registry, the embedded zoo, and loading of models by name, file or source."""
