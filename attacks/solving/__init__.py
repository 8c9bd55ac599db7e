"""The solver, the interface of a rule, and their parts."""
