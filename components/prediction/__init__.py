"""The steps of the graph `prediction`."""
