"""Diagnosis: every check on a model with a defense, and a report."""
