"""Training: the only place that imports torch. Roles are handed in, so the loop runs in a notebook too."""
