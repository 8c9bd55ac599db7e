"""Readers of the files that data sets come in. None of them runs code from a file."""
