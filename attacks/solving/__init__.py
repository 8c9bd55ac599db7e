"""The solver's loop, the interface of a rule, and what both are made of."""
