"""Device, clock, provenance and exit codes."""
