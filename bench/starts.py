"""The start of each step, its imports, and the whole of `make run`: `python bench/starts.py` (3 minutes).

A start is a process that imports what KFP's executor and the step import. It includes no compilation of packages:
`make` compiles them when it installs them. Compare with tests/fixtures/cd652ef/times.json.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measure import ROOT, median, write_result

REPEATS = 5
RUNS = 3


def main() -> None:
    """Measure, print and write bench/results/starts.json."""
    from components.step_table import STEPS

    starts = {step.name: _start(step.module) for step in STEPS}
    for name, seconds in starts.items():
        print(f"{name:20}{seconds:6.2f} s")
    runs = [_run(ROOT / "build" / "starts") for _ in range(RUNS)]
    print(f"{'make run':20}{median([run['seconds'] for run in runs]):6.1f} s")
    write_result("starts", {"starts": starts, "runs": runs})


def _start(module: str) -> float:
    code = f"import kfp.dsl.executor_main, {module}"
    return round(median([_seconds([sys.executable, "-c", code]) for _ in range(REPEATS)]), 3)


def _run(folder: Path) -> dict[str, Any]:
    """Return the seconds of a whole run with nothing cached but the download, and of its steps."""
    shutil.rmtree(folder, ignore_errors=True)
    seconds = _seconds([sys.executable, "pipeline.py", "local", "--runs", str(folder)])
    summary = json.loads((folder / "latest" / "summary.json").read_text())
    steps = {name: step["seconds"] for name, step in summary["steps"].items()}
    shutil.rmtree(folder)
    return {"seconds": round(seconds, 2), "accuracy": summary["test_accuracy"], "steps": steps}


def _seconds(command: list[str]) -> float:
    started = time.monotonic()
    environment = {**os.environ, "_KFP_RUNTIME": "true"} if "-c" in command else None
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


if __name__ == "__main__":
    main()
