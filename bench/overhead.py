"""What the pipeline costs beside its work: `python bench/overhead.py`.

Runs the pipeline on the digits of scikit-learn and, after each run, every step's function alone in a fresh Python with
the same inputs; the difference is what KFP and the runner add. Then times the whole warm `make run` on MNIST.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import ROOT, median, write_result

SETTINGS = ("data=digits", "epochs=1", "min_accuracy=0", "min_recall=0")
INPUTS = {
    "resolve": (),
    "download": (),
    "preprocess": ("raw",),
    "train": ("dataset",),
    "evaluate": ("dataset", "model"),
    "export": ("dataset", "model", "evaluation"),
}
OUTPUTS = {
    "resolve": (),
    "download": ("raw",),
    "preprocess": ("dataset",),
    "train": ("model",),
    "evaluate": ("metrics", "classification", "report", "evaluation"),
    "export": ("package",),
}
ALONE = """
import importlib, inspect, json, sys
step, arguments = json.loads(sys.argv[1])
function = getattr(importlib.import_module(f"components.{step}"), step)
wanted = inspect.signature(function).parameters
function(**{name: value for name, value in arguments.items() if name in wanted or step == "resolve"})
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs of each kind")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as scratch:
        _pipeline(Path(scratch), *SETTINGS)  # warm-up
        steps = [_steps(Path(scratch)) for _ in range(runs)]
    overhead = {
        name: round(median([run[name]["pipeline"] - run[name]["alone"] for run in steps]), 3) for name in INPUTS
    }
    whole = [_make_run() for _ in range(runs)]
    document = {
        "step_overhead_seconds": overhead,
        "make_run_seconds": median([run["wall_seconds"] for run in whole]),
        "raw": {"steps": steps, "make_run": whole},
    }
    print(write_result("overhead", document))


def _steps(scratch: Path) -> dict[str, dict[str, float]]:
    """Seconds of each step in the pipeline and alone."""
    folder, summary = _pipeline(scratch, *SETTINGS)
    return {
        name: {"pipeline": summary["steps"][name]["seconds"], "alone": _alone(name, folder, summary, scratch)}
        for name in INPUTS
    }


def _pipeline(runs: Path, *words: str) -> tuple[Path, dict[str, Any]]:
    command = [sys.executable, "pipeline.py", "local", "--no-cache", "--runs", str(runs), *words]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    folder = runs / "latest"
    return folder.resolve(), json.loads((folder / "summary.json").read_text())


def _alone(step: str, folder: Path, summary: dict[str, Any], scratch: Path) -> float:
    inputs = {name: str(folder / summary["artifacts"][name]) for name in INPUTS[step]}
    outputs = {name: str(scratch / "alone" / name) for name in OUTPUTS[step]}
    (scratch / "alone").mkdir(exist_ok=True)
    version = json.loads((folder / summary["artifacts"]["raw"] / "raw.json").read_text())["version"]
    given = summary["parameters"] | ({"version": version} if step == "download" else {})
    arguments = json.dumps([step, {**given, **inputs, **outputs}])
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", ALONE, arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return round(time.monotonic() - started, 3)


def _make_run() -> dict[str, Any]:
    started = time.monotonic()
    subprocess.run(["make", "-s", "run", "ARGS=--no-cache"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    wall = round(time.monotonic() - started, 2)
    summary = json.loads((ROOT / "runs" / "latest" / "summary.json").read_text())
    return {"wall_seconds": wall, "test_accuracy": summary["test_accuracy"], "steps": summary["steps"]}


if __name__ == "__main__":
    main()
