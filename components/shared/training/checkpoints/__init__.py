"""Checkpoints in the store: what they hold, by which names they are found, and how a training resumes from them."""
