"""Models derived from the attacked model: faster forms, backward modes, targets, rejection."""
