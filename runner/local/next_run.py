"""A run that a step of the latest run has asked for: the pipeline for training, after drift was found."""

import json
import subprocess
import sys
from pathlib import Path

from components.shared.core.printable import say
from components.shared.prediction.training_run import NextRunDocument

NEXT_RUN_FILE = "next-run.json"
PIPELINE = Path(__file__).parents[2] / "pipeline.py"


def run_next(runs: Path) -> int:
    """Do the run that the latest one asked for, in the same folder of runs, and return its exit code; 0 without one.

    Its lines go to stderr: stdout is that of the run that asked for it.
    """
    path = runs / "latest" / NEXT_RUN_FILE
    if not path.exists():
        return 0
    words = [f"{name}={_word(value)}" for name, value in NextRunDocument.read(path).parameters.items()]
    say("a training run follows", file=sys.stderr, flush=True)
    command = [sys.executable, str(PIPELINE), "local", "--runs", str(runs), *words]
    return subprocess.run(command, stdout=sys.stderr).returncode


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
