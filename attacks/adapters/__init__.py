"""Attacks of other libraries, configured by the threat model and run behind a guard."""
