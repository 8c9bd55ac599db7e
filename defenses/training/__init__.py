"""Training recipes: published defenses that change the weights, each short and reading like its paper."""
