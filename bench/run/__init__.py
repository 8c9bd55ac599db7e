"""Running cells, and the folder that holds a run."""
