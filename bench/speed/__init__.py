"""How fast the attacks are beside those of other libraries, on the same work; `gauntlet speed` runs it on demand."""
