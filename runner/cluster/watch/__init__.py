"""What a run in the cluster does: shown while it runs, and why it waits or has failed."""
