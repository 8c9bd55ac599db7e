"""Masked gradients of known mechanisms, each with a smooth twin, and the attacker that knows the mask."""
