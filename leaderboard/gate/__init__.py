"""Baselines, and the verdict of a gate as a pure function of records."""
