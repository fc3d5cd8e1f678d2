"""The verbs of the model registry: models, prune and verify."""
