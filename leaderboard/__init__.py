"""Records, the store, statistics, tables and writers: everything that is computed from stored results."""
