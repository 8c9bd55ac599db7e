"""Files of weights: reading them without running their code, and loading them into a model."""
