"""The model registry in the store: versions and the champion."""
