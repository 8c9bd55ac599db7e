"""The wrapper of models, normalisation, cards, digests and errors."""
