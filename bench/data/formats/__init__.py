"""Readers of data files, one file per format; `catalog` lists them. No reader runs code from a file."""
