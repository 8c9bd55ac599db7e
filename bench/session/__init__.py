"""A benchmark session of pytest or the command line."""
