"""Whole results folders: tables over all their runs, merging, removing models, packing and cleaning."""
