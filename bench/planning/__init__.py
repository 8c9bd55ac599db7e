"""From the configuration to an ordered list of cells."""
