"""Exchange of results with other benchmarks."""
