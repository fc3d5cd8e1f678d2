"""The version of the steps' code."""

from pathlib import Path

from components.shared.core.files import sha256_json


def code_version() -> str:
    """Twelve hexadecimal digits over the sources of `components/`: they change exactly when a step's code does."""
    root = Path(__file__).parents[2]
    sources = sorted(p for p in root.rglob("*") if p.suffix in (".py", ".html"))
    return sha256_json([(p.relative_to(root).as_posix(), p.read_text()) for p in sources])[:12]
