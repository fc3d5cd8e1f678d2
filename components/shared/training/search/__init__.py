"""Sweeps: the settings of the trials, and asynchronous successive halving (ASHA)."""
