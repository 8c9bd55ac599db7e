"""The command line `gauntlet`."""
