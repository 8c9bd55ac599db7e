"""A look at a model before it is attacked, and the configuration that follows from it."""
