"""All checks on one pair, as a report."""
