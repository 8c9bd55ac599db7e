"""Comparison of runs with each other, with history and with published figures."""
