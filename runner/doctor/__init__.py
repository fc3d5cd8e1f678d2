"""The verb doctor: one module for each check."""
