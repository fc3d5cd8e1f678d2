"""The HTML reports and their plots."""
