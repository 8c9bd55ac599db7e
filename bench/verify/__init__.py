"""Verification of adversarial examples."""
