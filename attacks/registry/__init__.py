"""Cards, names, settings and suites of attacks."""
