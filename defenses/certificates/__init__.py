"""Bounds, exact verification and certificates of robustness."""
