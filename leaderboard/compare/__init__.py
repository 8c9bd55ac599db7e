"""Comparison of runs, and the search for the commit that lost samples."""
