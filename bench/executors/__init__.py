"""Executables, which cells run: a file for each kind."""
