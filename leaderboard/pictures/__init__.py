"""Pictures of stored results: pure functions from records to matplotlib figures, and their PNG bytes."""
