"""The steps' container images at their registry."""
