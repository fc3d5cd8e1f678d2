"""The revision of the code, as git tells it."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def git_revision() -> str:
    """What git calls the present commit, with `-dirty` where files differ; empty where there is no git."""
    command = ["git", "describe", "--always", "--tags", "--dirty"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
