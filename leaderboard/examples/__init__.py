"""How adversarial examples of 8-bit images are stored: as differences from clean images that a results folder has once."""
