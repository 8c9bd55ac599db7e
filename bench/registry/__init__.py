"""The generic registry, plugins, entry points and the validation of entries."""
