"""Defenses at inference (input transformations) and, in `training`, recipes that train robust models."""
