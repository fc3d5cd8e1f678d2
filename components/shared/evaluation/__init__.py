"""Predictions, metrics, and the documents of evaluated and exported models."""
