"""Proportions, intervals and paired tests."""
