"""Automatic BPDA: a forward pass is intercepted, and operations without a useful gradient get one."""
