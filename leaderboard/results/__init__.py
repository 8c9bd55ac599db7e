"""Records and the store that holds them."""
