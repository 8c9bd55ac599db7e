"""Checkpoints and weights: files that carry no code."""
