"""The HTML reports and their diagrams."""
