"""The seam between Gauntlet's side, which keeps the store and judges, and the user's side, which runs models."""
