"""From a cell to all that running it needs: loaded, measured, keyed."""
