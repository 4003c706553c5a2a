"""Two computations side by side: how far apart they are, where they part, and why."""
