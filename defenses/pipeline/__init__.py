"""The defended model, the card and catalog of defenses, and the parts that defenses share."""
