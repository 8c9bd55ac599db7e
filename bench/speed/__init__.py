"""Comparison of the attacks' speed with other libraries on the same work, for `gauntlet speed`."""
