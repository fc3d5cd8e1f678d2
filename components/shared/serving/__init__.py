"""Serve a version of the registry by KServe: the rollout, the smoke test, and what they ask of Kubernetes."""
