"""Rows of the leaderboard: worst case, brackets, cross-checks and ranks."""
