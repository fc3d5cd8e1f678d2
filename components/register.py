"""Step register: an accepted, exported model -> a version in the store, and its champion if it is better."""

from pathlib import Path


def register(
    *,
    dataset: str | Path,
    model: str | Path,
    evaluation: str | Path,
    package: str | Path,
    store: str,
    model_name: str,
    significance: float,
    threads: int,
    registration: str | Path,
    promotion: str | Path,
) -> None:
    """Register the exported model in the store."""
