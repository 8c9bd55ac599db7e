"""Common corruptions, image by image: what the world does to pictures, where an attack is what an adversary does."""
