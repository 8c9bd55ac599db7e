"""Evaluation data: registered data sets, files and folders of the user, and their validation."""
