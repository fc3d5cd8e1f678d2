"""Programs that a cluster starts by `python -m` and that are no steps of a pipeline."""
