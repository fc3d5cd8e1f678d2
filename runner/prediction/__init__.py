"""Prediction with an exported model on this machine."""
