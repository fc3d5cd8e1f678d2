"""The checks of what a cluster offers the pods of a run: nodes, quotas, admission and images."""
