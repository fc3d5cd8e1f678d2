"""Runs on this machine: KFP's local runner and an embedded S3 server."""
