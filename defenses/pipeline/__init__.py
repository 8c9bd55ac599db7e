"""The defended model, its card, and what defenses are made of."""
