"""Cards and wrappers of models."""
