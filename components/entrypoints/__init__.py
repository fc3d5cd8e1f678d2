"""Programs that are not steps of a pipeline and are started by `python -m`."""
