"""Data sets as tensors: arrays, lazy images, blocks, selections and preprocessing."""
