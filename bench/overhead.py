"""What the pipeline costs beside its work: `python bench/overhead.py`.

Runs the pipeline on the digits of scikit-learn once, and then in a copy of the repository whose step functions do
nothing but put that run's artifacts in place: what a step takes there, beyond the start of a bare Python, is what KFP
and the runner add to its work and imports. Then times the whole warm `make run` on MNIST, with nothing cached, and
the same again, when all but resolve and finish is.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import ROOT, median, write_result

SETTINGS = ("data=digits", "epochs=1", "min_accuracy=0", "min_recall=0")
OUTPUTS = {
    "resolve": (),
    "download": ("raw",),
    "preprocess": ("dataset",),
    "train": ("model",),
    "evaluate": ("metrics", "classification", "report", "evaluation"),
    "export": ("package",),
    "register": ("registration", "promotion"),
    "finish": ("record",),
}
STUB = """
import shutil
from pathlib import Path
from types import SimpleNamespace

def {step}(**arguments):
    for name, saved in {saved}.items():
        copy = shutil.copytree if Path(saved).is_dir() else shutil.copyfile
        copy(saved, arguments[name])
    return {result}
"""
RESULTS = {
    "resolve": "('version', 'preparation', 'training', '', 'evaluation', 0, 'registration')",
    "evaluate": "SimpleNamespace(accepted=True, metrics={'accuracy': 1.0}, classes=['a', 'b'], "
    "confusion_matrix=[[1, 0], [0, 1]], roc_curve=([0.0, 1.0], [0.0, 1.0], [1.0, 0.0]))",
}


def main() -> None:
    """Measure, print, and write `bench/results/overhead.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs of each kind")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as scratch:
        copy = _copy_without_work(Path(scratch))
        steps = [_steps(copy) for _ in range(runs)]
    whole = [_make_run("--no-cache") for _ in range(runs)]
    _make_run("")  # whose steps the next ones take from the cache
    again = [_make_run("") for _ in range(runs)]
    document = {
        "step_overhead_seconds": {name: round(median([run[name] for run in steps]), 3) for name in OUTPUTS},
        "make_run_seconds": median([run["wall_seconds"] for run in whole]),
        "make_run_again_seconds": median([run["wall_seconds"] for run in again]),
        "raw": {"steps": steps, "make_run": whole, "make_run_again": again},
    }
    print(write_result("overhead", document).relative_to(ROOT), document["step_overhead_seconds"])


def _copy_without_work(scratch: Path) -> Path:
    """A copy of the repository in `scratch` whose steps hand on the artifacts of a true run."""
    summary = _pipeline(ROOT, scratch / "runs")
    folder = (scratch / "runs" / "latest").resolve()
    copy = scratch / "copy"
    shutil.copytree(ROOT / "components", copy / "components")
    shutil.copytree(ROOT / "runner", copy / "runner")
    for name in ("pipeline.py", "requirements.txt"):
        shutil.copy(ROOT / name, copy)
    for step, names in OUTPUTS.items():
        saved = {name: str(folder / summary["artifacts"][name]) for name in names}
        text = STUB.format(step=step, saved=saved, result=RESULTS.get(step))
        (copy / "components" / f"{step}.py").write_text(text)
    _pipeline(copy, scratch / "runs")  # which compiles its modules
    return copy


def _steps(copy: Path) -> dict[str, float]:
    """Seconds of each step beyond those of a bare Python."""
    summary = _pipeline(copy, copy.parent / "runs")
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", ""], check=True)
    bare = time.monotonic() - started
    return {name: round(summary["steps"][name]["seconds"] - bare, 3) for name in OUTPUTS}


def _pipeline(repository: Path, runs: Path) -> dict[str, Any]:
    command = [sys.executable, "pipeline.py", "local", "--no-cache", "--runs", str(runs), *SETTINGS]
    subprocess.run(command, cwd=repository, check=True, stdout=subprocess.DEVNULL)
    summary: dict[str, Any] = json.loads((runs / "latest" / "summary.json").read_text())
    return summary


def _make_run(options: str) -> dict[str, Any]:
    started = time.monotonic()
    subprocess.run(["make", "-s", "run", f"ARGS={options}"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    wall = round(time.monotonic() - started, 2)
    summary = json.loads((ROOT / "runs" / "latest" / "summary.json").read_text())
    return {"wall_seconds": wall, "test_accuracy": summary["test_accuracy"], "steps": summary["steps"]}


if __name__ == "__main__":
    main()
