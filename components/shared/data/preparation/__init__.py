"""How images become a prepared dataset: unit by unit, joined at the end by a row of facts on each image."""
