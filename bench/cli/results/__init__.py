"""The commands that read stored results, one file for each."""
