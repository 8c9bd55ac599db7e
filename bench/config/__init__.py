"""Configuration: its schema, files and options."""
