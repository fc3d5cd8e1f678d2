"""Recurring runs: cron, the verbs schedule and apply, and the deploy file."""
