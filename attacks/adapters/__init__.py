"""Whole attacks of torchattacks and ART, configured by the threat model and run behind a guard."""
