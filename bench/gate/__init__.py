"""Gates: runs that are judged against a baseline."""
