"""Runs in a cluster: the connection to KFP and Kubernetes, and the verbs upload, run, status and logs."""
