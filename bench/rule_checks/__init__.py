"""Checks of a rule for its author: models with a known optimum, small networks, and what the solver expects of a rule."""
