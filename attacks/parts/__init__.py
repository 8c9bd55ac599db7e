"""Building blocks that several attacks share."""
