"""Runs on several workers: a request's blocks shared out over them, cells side by side, and workers on a Ray cluster."""
