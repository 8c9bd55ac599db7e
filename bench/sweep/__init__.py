"""Sweeps over an attack's settings."""
