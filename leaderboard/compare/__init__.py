"""Comparison of the rows of runs, and bisection of lost samples over commits."""
