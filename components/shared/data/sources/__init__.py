"""Where data comes from: one module for each scheme of `data=`, and the formats found there."""
