"""Runs whose cached steps lead to a store that has lost something, in KFP's local runner with a real S3 server."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Runner

pytestmark = pytest.mark.slow

WORDS = ("data=digits", "epochs=1", "batch_size=64", "threads=1", "min_recall=0")
REMOTE = (*WORDS, "handover_mib=0", "min_accuracy=1")  # steps read the data from the store; no version uses it


def states(tmp_path: Path) -> dict[str, str]:
    return {name: step["state"] for name, step in summary(tmp_path)["steps"].items()}


def summary(tmp_path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((tmp_path / "runs/latest/summary.json").read_text())
    return document


def verb(tmp_path: Path, *words: str) -> str:
    """Run a verb on the store of the runs, and return what it prints."""
    command = [sys.executable, "pipeline.py", *words, "--runs", str(tmp_path / "runs")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def check(done: subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, done.stderr) == (0, "")


def test_pruned_data_is_prepared_again_once(tmp_path: Path, run_here: Runner) -> None:
    check(run_here(*REMOTE))
    assert "the prepared data" in verb(tmp_path, "models", "prune", "--older-than", "0")
    check(run_here(*REMOTE, "learning_rate=0.01"))
    assert [states(tmp_path)[name] for name in ("download", "preprocess", "train")] == ["cached", "done", "done"]
    check(run_here(*REMOTE, "learning_rate=0.01"))
    assert [states(tmp_path)[name] for name in ("preprocess", "train")] == ["cached", "cached"]


def test_a_cached_run_tells_of_the_present_store(tmp_path: Path, run_here: Runner) -> None:
    words = (*WORDS, "min_accuracy=0")
    check(run_here(*words))
    check(run_here(*words, "seed=1"))
    check(run_here(*words))
    first = summary(tmp_path)["registered"]
    verb(tmp_path, "models", "promote", first["name"], "2" if first["is_champion"] else "1")
    done = run_here(*words)
    check(done)
    assert summary(tmp_path)["registered"]["is_champion"] is not first["is_champion"]
    assert ("not champion: version 2 is since then: it was promoted by hand" in done.stdout) == first["is_champion"]
    shutil.rmtree(tmp_path / "runs/s3")
    check(run_here(*words))
    assert (states(tmp_path)["download"], states(tmp_path)["register"]) == ("cached", "done")
    registered = summary(tmp_path)["registered"]
    assert (registered["version"], registered["is_champion"]) == (1, True), "the store is new"
    assert registered["name"] in verb(tmp_path, "models")
