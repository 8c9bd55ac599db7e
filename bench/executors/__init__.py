"""What a cell runs: one file for each kind."""
