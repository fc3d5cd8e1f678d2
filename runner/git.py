"""Run git on the code: its revision."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def git(*words: str) -> str | None:
    """Run git here and return its output; None if it is not installed, or this is no checkout."""
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return None
    return None if done.returncode else done.stdout.strip()


def git_revision() -> str:
    """Return git's name of the present commit, with `-dirty` if files differ from it; empty without git."""
    return git("describe", "--always", "--tags", "--dirty") or ""
