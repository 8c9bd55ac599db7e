"""Training recipes: published defenses that change the weights, and the training loop that they share."""
