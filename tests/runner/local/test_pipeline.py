"""The whole compiled pipeline in KFP's local runner, as `make run` runs it."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest

from components.shared.core.files import sha256_file
from components.shared.data.dataset import open_dataset
from components.step_table import names_in
from runner.local import s3_server
from tests.conftest import ROOT, Runner, run_local
from tests.disk_use import small_disk
from tests.sample_files import picture
from tests.step_processes import step_processes

pytestmark = pytest.mark.slow

DIGITS = ("data=digits", "epochs=12", "batch_size=64", "min_accuracy=0.9", "min_recall=0.7")
REFUSED = ("data=digits", "epochs=2", "min_accuracy=1")
DONE = dict.fromkeys(names_in("training"), "done")
CACHED = DONE | dict.fromkeys(("download", "preprocess", "train", "evaluate", "export"), "cached")


class Run(NamedTuple):
    """A run that has ended: the folder of all runs, its own, its summary, and what it printed."""

    runs: Path
    folder: Path
    summary: dict[str, Any]
    process: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a good model of the digits."""
    return _run(tmp_path_factory.mktemp("digits"), *DIGITS)


@pytest.fixture(scope="module")
def refused_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a model that is not accepted."""
    return _run(tmp_path_factory.mktemp("refused"), *REFUSED)


def _run(path: Path, *words: str) -> Run:
    process = run_local(path / "runs", *words)
    assert (process.returncode, process.stderr) == (0, "")
    return Run(path / "runs", *_latest(path), process)


def _latest(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path / "runs" / "latest"
    return folder, json.loads((folder / "summary.json").read_text())


def _states(summary: dict[str, Any]) -> dict[str, str]:
    return {name: step["state"] for name, step in summary["steps"].items()}


def test_a_good_model_takes_all_steps(digits_run: Run) -> None:
    summary = digits_run.summary
    assert _states(summary) == DONE
    assert summary["accepted"] is True
    assert summary["test_accuracy"] >= 0.9
    assert sum(summary["dataset"]["counts"].values()) == 1797


def test_a_run_takes_at_least_the_time_of_its_steps(digits_run: Run) -> None:
    summary = digits_run.summary
    assert summary["seconds"] >= sum(step["seconds"] for step in summary["steps"].values()) > 0


def test_the_artifacts_of_the_summary_exist(digits_run: Run) -> None:
    artifacts = digits_run.summary["artifacts"]
    assert {"raw", "dataset", "model", "report", "evaluation", "package", "registration"} <= artifacts.keys()
    for path in artifacts.values():
        assert (digits_run.folder / path).exists(), path


def test_the_package_predicts_what_the_summary_reports(digits_run: Run) -> None:
    _check_package(digits_run.folder, digits_run.summary)


def test_people_see_progress_and_a_table(digits_run: Run) -> None:
    shown = digits_run.process.stdout
    for text in ("train      epoch 1/12", "test accuracy", "accepted", "report.html"):
        assert text in shown
    assert "executor_input" not in shown, "KFP's own log belongs in the file"
    assert "Executing task" in (digits_run.folder / "kfp.log").read_text()


def test_the_report_is_a_page_and_no_link(digits_run: Run) -> None:
    page = digits_run.folder / "report.html"
    assert page.read_text().startswith("<!doctype html>")
    assert not page.is_symlink(), "a browser goes by the name of the target, and would show the source"


def test_a_run_leaves_no_temporary_files(digits_run: Run) -> None:
    assert not list(digits_run.folder.rglob("*.partial"))
    assert not (digits_run.folder / "tmp").exists()


def test_nobody_else_can_read_what_a_run_leaves(digits_run: Run) -> None:
    found = [digits_run.runs, *digits_run.runs.rglob("*")]
    assert len([path for path in found if path.suffix == ".npy"]) > 5
    inner = digits_run.runs / "s3" / "data"  # whose folder is closed; SeaweedFS sets some modes itself
    open_to_others = [path for path in found if not path.is_symlink() and path.stat().st_mode & 0o077]
    assert [path for path in open_to_others if inner not in path.parents] == []


def test_the_model_is_registered_in_the_embedded_store(digits_run: Run) -> None:
    assert digits_run.summary["parameters"]["store"] == s3_server.STORE
    registered = digits_run.summary["registered"]
    assert (registered["version"], registered["is_champion"]) == (1, True)
    assert f"registered     {registered['name']} version 1, champion" in digits_run.process.stdout


def test_the_secret_of_the_store_is_in_one_file(digits_run: Run) -> None:
    secret = s3_server.Server(digits_run.runs / "s3").variables["AWS_SECRET_ACCESS_KEY"]
    assert secret not in digits_run.process.stdout
    files = [path for path in digits_run.runs.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert files == [digits_run.runs / "s3" / "keys.json"]


def _check_package(folder: Path, summary: dict[str, Any]) -> None:
    """Check that the exported model has the accuracy on the test split that the summary reports."""
    images, labels = open_dataset(folder / summary["artifacts"]["dataset"]).load("test")
    session = onnxruntime.InferenceSession(folder / "package" / "model.onnx", providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(None, {"images": images})
    assert np.mean(np.argmax(probabilities, axis=1) == labels) == pytest.approx(summary["test_accuracy"])


def test_the_same_run_twice_gives_a_bit_identical_model(refused_run: Run, tmp_path: Path, run_pipeline: Runner) -> None:
    assert run_pipeline("--no-cache", "store=", *REFUSED).returncode == 0
    folder, summary = _latest(tmp_path)
    assert _states(refused_run.summary) == _states(summary) == DONE
    for name in ("model.safetensors", "model.json"):
        assert sha256_file(folder / "model" / name) == sha256_file(refused_run.folder / "model" / name)


def test_steps_of_an_earlier_run_are_cached(tmp_path: Path, run_here: Runner) -> None:
    pets = tmp_path / "pets"
    for name in ("cat", "dog"):
        (pets / name).mkdir(parents=True)
        for number in range(20):
            (pets / name / f"{number}.png").write_bytes(picture(number + 100 * (name == "dog")))
    words = (f"data={pets.as_uri()}", "epochs=1", "batch_size=8", "min_recall=0")

    def states(*changed: str) -> dict[str, str]:
        """The state of each step of a run, whose results are complete whatever is cached."""
        done = run_here(*words, *changed)
        assert (done.returncode, done.stderr) == (0, "")
        folder, summary = _latest(tmp_path)
        for path in summary["artifacts"].values():
            assert (folder / path).exists(), path
        assert (folder / "report.html").is_file() and sum(summary["dataset"]["counts"].values()) > 0
        assert (folder / "package" / "model.onnx").is_file() == summary["accepted"]
        return _states(summary)

    judged = CACHED | {"evaluate": "done", "export": "done"}
    retrained = judged | {"train": "done"}
    assert states("min_accuracy=0") == DONE
    assert states("min_accuracy=0") == CACHED
    assert states("min_accuracy=1") == judged  # a verdict is cheap
    assert states("min_accuracy=1") == CACHED
    assert states("min_accuracy=1", "learning_rate=0.01") == retrained
    (pets / "cat" / "new.png").write_bytes(picture(200))
    assert states("min_accuracy=1") == DONE
    for model in (tmp_path / "runs").glob("*/torch2kubeflow-training-*/train/model"):
        shutil.rmtree(model)
    assert states("min_accuracy=1") == retrained


def test_a_model_below_the_threshold_is_not_exported(refused_run: Run) -> None:
    summary = refused_run.summary
    assert _states(summary) == DONE
    assert summary["accepted"] is False and summary["registered"]["version"] is None
    assert summary["reasons"]
    assert "package" not in summary["artifacts"]
    assert not (refused_run.folder / "package").exists()
    assert "not accepted, not exported" in refused_run.process.stdout


def test_another_network_runs_the_same_way(tmp_path: Path, run_pipeline: Runner) -> None:
    words = ("data=digits", "image_size=8", "network=squeezenet1_1", "optimizer=adamw", "learning_rate=0.0005")
    done = run_pipeline(*words, "epochs=1", "batch_size=64", "min_accuracy=0", "min_recall=0")
    assert (done.returncode, done.stderr) == (0, "")
    folder, summary = _latest(tmp_path)
    assert _states(summary) == DONE
    assert summary["registered"]["is_champion"] is True
    assert "squeezenet1_1 on scikit-learn" in (folder / "report.html").read_text()
    _check_package(folder, summary)


def test_mnist_reaches_99_percent(tmp_path: Path, run_pipeline: Runner) -> None:
    done = run_pipeline()
    assert done.returncode == 0, done.stderr
    _, summary = _latest(tmp_path)
    assert summary["test_accuracy"] >= 0.99
    assert _states(summary) == DONE
    assert sum(summary["dataset"]["counts"].values()) == 70_000
    assert summary["dataset"]["counts"]["test"] == 10_000


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (("data=file:///no such/python3 pictures'\"",), "/no such/python3 pictures'\""),  # which a shell would take
        (("data=digits", "batch_size=100000", "store="), "batch_size=100000"),
    ],
)
def test_an_error_that_a_step_reports_is_one_line(
    tmp_path: Path, run_pipeline: Runner, words: tuple[str, ...], reported: str
) -> None:
    failed = run_pipeline(*words)
    assert failed.returncode == 2
    assert reported in failed.stderr
    assert failed.stderr.startswith("error: ")
    assert failed.stderr.count("\n") == 1
    folder, summary = _latest(tmp_path)
    assert summary["state"] == "failed"
    assert summary["error"] in failed.stderr
    assert "failed" in _states(summary).values()
    record = json.loads((folder / summary["artifacts"]["record"] / "record.json").read_text())
    assert record["state"] == "FAILED"
    assert not list(folder.rglob("*.partial"))
    store = "" if "store=" in words else s3_server.STORE
    assert summary["parameters"]["store"] == record["parameters"]["store"] == store
    assert (tmp_path / "runs" / "s3").exists() == bool(store)


def test_a_second_run_at_the_same_time_is_refused(tmp_path: Path, run_pipeline: Runner) -> None:
    with _Running(tmp_path, "data=digits", "epochs=500", "batch_size=16") as first:
        _wait_for(tmp_path, "train")
        second = run_pipeline("data=digits")
        assert second.returncode == 2
        assert f"in use by process {first.pid};" in second.stderr
        assert "--runs" in second.stderr
        assert second.stderr.count("\n") == 1
    assert len(list((tmp_path / "runs").glob("2*"))) == 1


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path, signal_number: int) -> None:
    with _Running(tmp_path, "data=digits", "epochs=500", "batch_size=16") as run:
        child = _wait_for(tmp_path, "train")
        run.send_signal(signal_number)
        _, shown = run.communicate(timeout=300)
    assert run.returncode == 130
    assert shown == "error: interrupted; nothing half-written is left\n"
    assert not Path(f"/proc/{child}").exists()
    folder, summary = _latest(tmp_path)
    assert summary["state"] == "interrupted"
    assert _states(summary)["train"] == "failed"
    assert not list(folder.rglob("*.partial"))
    assert not (folder / "model").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="children die with their parent only on Linux")
def test_a_killed_run_leaves_no_process(tmp_path: Path) -> None:
    with _Running(tmp_path, "data=digits", "epochs=500", "batch_size=16") as run:
        child = _wait_for(tmp_path, "train")
        server = int((tmp_path / "runs" / "s3" / "weed.pid").read_text())
        run.kill()
        run.communicate(timeout=300)
        deadline = time.monotonic() + 300
        while Path(f"/proc/{child}").exists() or Path(f"/proc/{server}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)


class _Running:
    """A run in the background, killed at the end of the block."""

    def __init__(self, tmp_path: Path, *words: str) -> None:
        command = [sys.executable, "pipeline.py", "local", *words, "--runs", str(tmp_path / "runs")]
        self.run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __enter__(self) -> subprocess.Popen[str]:
        return self.run

    def __exit__(self, *_: object) -> None:
        self.run.send_signal(signal.SIGINT)
        self.run.communicate(timeout=300)


def _wait_for(tmp_path: Path, step: str) -> int:
    """Wait until a step of the run has printed a line, and return its process id."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        for pid in step_processes(tmp_path / "runs", step):
            if any(f"[{step}] " in log.read_text() for log in (tmp_path / "runs").glob("2*/kfp.log")):
                return pid
        time.sleep(0.1)
    raise AssertionError(f"{step} did not start")


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, run_pipeline: Runner) -> None:
    # Enough for the raw digits of MNIST, but not for the prepared ones.
    with small_disk(tmp_path / "disk", 24 * 2**20) as disk:
        failed = run_pipeline("--runs", str(disk / "runs"))
        left = list(disk.rglob("*.partial"))
    assert failed.returncode == 2
    assert "No space left on device" in failed.stderr
    assert failed.stderr.endswith("; free some space there\n")
    assert failed.stderr.count("\n") == 1
    assert not left
