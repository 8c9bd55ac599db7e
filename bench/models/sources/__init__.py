"""Models by where they come from: published zoos, model hubs, files of other frameworks, and functions."""
