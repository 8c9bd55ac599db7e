"""Gates: judging runs against a baseline."""
