"""Reading the blocks of a cell together."""
