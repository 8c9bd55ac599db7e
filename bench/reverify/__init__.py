"""Checking what others measured: stored attacks run again, flags derived again, and bare examples without a run."""
