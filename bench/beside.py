"""`make run` beside the code of an earlier commit: `python bench/beside.py 7d94761` (6 minutes, on an idle machine).

Both run by turns, with the libraries of this checkout and nothing cached but the download, so what changes on the
machine changes both. The weights of all runs are compared. The commit must still run with these libraries.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from measure import ROOT, median, write_result

REPEATS = 5


def main() -> None:
    """Measure, print and write bench/results/beside-<commit>.json."""
    commit = sys.argv[1]
    with TemporaryDirectory() as folder:
        earlier = Path(folder) / "earlier"
        subprocess.run(["git", "clone", "-q", ROOT, earlier], check=True)
        subprocess.run(["git", "-C", earlier, "checkout", "-q", commit], check=True)
        trees = {commit: earlier, "now": ROOT}
        for tree in trees.values():  # downloads the data and compiles what is imported
            _run(tree, Path(folder) / "runs")
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in trees}
        for _ in range(REPEATS):
            for name, tree in trees.items():
                runs[name].append(_run(tree, Path(folder) / "runs"))
                print(name, runs[name][-1], flush=True)
    medians = {name: median([run["seconds"] for run in of]) for name, of in runs.items()}
    same = len({run["weights"] for of in runs.values() for run in of}) == 1
    print(f"medians {medians}, {'the same weights' if same else 'OTHER WEIGHTS'}")
    loads = os.getloadavg()
    write_result(f"beside-{commit}", {"medians": medians, "same_weights": same, "runs": runs, "load_after": loads})


def _run(tree: Path, runs: Path) -> dict[str, Any]:
    shutil.rmtree(runs, ignore_errors=True)
    started = time.monotonic()
    command = [sys.executable, "pipeline.py", "local", "--runs", str(runs)]
    subprocess.run(command, cwd=tree, check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    summary = json.loads((runs / "latest" / "summary.json").read_text())
    steps = {name: step["seconds"] for name, step in summary["steps"].items()}
    weights = next((runs / "latest").rglob("model.safetensors"))
    digest = sha256(weights.read_bytes()).hexdigest()
    return {"seconds": round(seconds, 2), "weights": digest, "steps": steps}


if __name__ == "__main__":
    main()
