"""Prediction with an exported package: what its inputs are, and whether new ones are like those it was tested on."""
