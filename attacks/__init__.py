"""Threat models, the solver, attack rules and adapters to whole attacks of other libraries."""
