"""Whole runs with faults: killed processes, lost files, a bad network, keys revoked and buckets deleted in mid-run.

`make test-faults` tries many more moments than `make test`, and adds its results to bench/results/faults.jsonl.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from components.shared.data.dataset_store import SHARDS, read_recipe
from components.shared.storage.client import Store, open_store
from components.step_table import names_in
from tests.conftest import ROOT
from tests.servers.s3_server import BUCKET, S3Server, answer, proxy
from tests.step_processes import has_processes, step_processes

pytestmark = pytest.mark.slow

WORDS = ("data=digits", "epochs=12", "batch_size=64", "min_accuracy=0.9", "min_recall=0.7", "checkpoint_seconds=1")
AT_WORK = {"train": r"\[train\] epoch", "export": r"\[export\] tracing"}  # what a step logs in the middle of its work
MOMENTS = int(os.environ.get("FAULT_MOMENTS", "1"))  # of the sweep
FIRST_KILLED = ("train", "evaluate", "register")
KILLED = (*FIRST_KILLED, *(name for name in names_in("training") if name not in FIRST_KILLED))  # steps, in turn
RESULTS = ROOT / "bench" / "results" / "faults.jsonl"


class Run:
    """A run of the digits in `folder`, with a store of its own on a server."""

    def __init__(self, folder: Path, name: str, server: S3Server, url: str = "", bucket: str = BUCKET) -> None:
        self.runs, self.uri = folder / "runs", f"s3://{bucket}/{name}".rstrip("/")
        self.environment = server.environment | ({"AWS_ENDPOINT_URL_S3": url} if url else {})
        self.direct = server.environment
        self.store: Store = open_store(self.uri, self.direct)

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "pipeline.py", "local", "--runs", str(self.runs), f"store={self.uri}", *WORDS]
        return subprocess.Popen(
            [*command, *words],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, *words: str) -> str:
        """Run to the end, and return the weights' digest."""
        run = self.start(*words)
        _, errors = run.communicate(timeout=600)
        assert (run.returncode, errors) == (0, "")
        return str(self.read("model/model.json")["weights_sha256"])

    def read(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.runs / "latest" / name).read_text())
        return document

    def verb(self, *words: str) -> str:
        """Return the output of a verb on the store, which it reaches without faults."""
        command = [sys.executable, "pipeline.py", *words, "--store", self.uri]
        environment = {**os.environ, **self.direct}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def check_store(self) -> None:
        """Check that there is one complete version, the champion, and no garbage after `prune`."""
        register = json.loads(self.store.get_bytes("models/digits/register.json")[0])
        assert [(v["version"], v["state"]) for v in register["versions"]] == [(1, "complete")]
        assert register["champion"] == 1
        self.verb("models", "prune", "--older-than", "0")
        version = json.loads(self.store.get_bytes("models/digits/versions/1/version.json")[0])
        assert version["provenance"]["image"] == "", "no image runs here"
        expected = {f"models/digits/versions/1/{name}" for name in version["files"]}
        expected |= {"models/digits/versions/1/version.json", "models/digits/register.json"}
        found = {entry.name for entry in self.store.list("models")}
        assert found == expected
        assert not list(self.store.list("checkpoints"))
        recipes = {entry.name.split("/")[1] for entry in self.store.list("datasets")} - {"shards"}
        assert len(recipes) == 1
        _, shards = read_recipe(self.store, *recipes)
        assert {entry.name for entry in self.store.list(SHARDS)} == shards
        assert not list(self.store.unfinished_uploads())
        for name, file in version["files"].items():
            self.store.get_file(f"models/digits/versions/1/{name}", self.runs / "checked", sha256=file["sha256"])


class Reference(NamedTuple):
    """A run without faults: the digest of its weights, its seconds and those of its steps."""

    run: Run
    digest: str
    seconds: float
    steps: dict[str, float]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, server: S3Server) -> Reference:
    run = Run(tmp_path_factory.mktemp("reference"), "reference", server)
    started = time.monotonic()
    digest = run.finish()
    seconds = time.monotonic() - started
    run.check_store()
    steps = {name: step["seconds"] for name, step in run.read("summary.json")["steps"].items()}
    return Reference(run, digest, seconds, steps)


def test_retraining_a_version_is_bit_identical(reference: Reference) -> None:
    assert "its weights are bit-identical" in reference.run.verb("verify", "digits/1", "--retrain")


@pytest.mark.parametrize("number", range(MOMENTS))
def test_a_killed_run_resumes_to_the_same_model(
    tmp_path: Path, server: S3Server, reference: Reference, number: int
) -> None:
    chance = random.Random(number)
    run = Run(tmp_path, f"killed-{number}", server)
    what, are_files_lost = ("step", "run")[(number + number // 2) % 2], number % 2 == 1
    step = KILLED[(number // 2 + number // 16) % len(KILLED)]
    share = chance.uniform(0.03, 0.95)
    child, started = run.start(), time.monotonic()
    if what == "run":
        time.sleep(share * reference.seconds)
        os.kill(child.pid, signal.SIGKILL)
    else:
        _kill_step(run.runs, step, 0.8 * share * reference.steps[step])
    after = round(time.monotonic() - started, 1)
    child.communicate(timeout=600)
    assert child.returncode == (-signal.SIGKILL if what == "run" else 1)
    _wait_until_gone(run.runs)
    reached = _reached(run.runs)
    if are_files_lost:
        shutil.rmtree(run.runs)
    started = time.monotonic()
    assert run.finish() == reference.digest
    again = round(time.monotonic() - started, 1)
    run.check_store()
    _note({"killed": what, "after_seconds": after, "in": reached, "files_lost": are_files_lost, "again_seconds": again})


def test_a_bad_network_loses_and_duplicates_nothing(tmp_path: Path, server: S3Server, reference: Reference) -> None:
    with proxy(server.address) as bad_network:
        bad_network.rate = 0.3  # a run sends some forty requests
        run = Run(tmp_path, "bad-network", server, bad_network.url)
        assert run.finish("handover_mib=0") == reference.digest
        assert bad_network.dealt.total() >= len(bad_network.asked) / 10 >= 3
        assert len(bad_network.dealt) >= 3, "kinds of faults"
    run.check_store()


@pytest.mark.parametrize("step", ["train", "export"] if "FAULT_MOMENTS" in os.environ else ["train"])
def test_a_run_resumes_after_its_keys_were_revoked(
    tmp_path: Path, server: S3Server, reference: Reference, step: str
) -> None:
    with proxy(server.address) as network:
        run = Run(tmp_path, f"revoked-{step}", server, network.url)
        child = run.start()
        _wait_until_logged(run.runs, AT_WORK[step])
        network.always = answer(403, "InvalidAccessKeyId")
        _one_error(child, "the access key is not known")
        assert (run.runs / "latest" / "package" / "model.onnx").is_file(), "local results are not lost"
        network.always = None
        assert run.finish() == reference.digest
        assert {run.read("summary.json")["steps"][name]["state"] for name in ("train", "export")} == {"cached"}
    run.check_store()


def test_a_run_resumes_after_its_bucket_was_deleted(tmp_path: Path, server: S3Server, reference: Reference) -> None:
    server.client.make_bucket("gone")
    run = Run(tmp_path, "", server, bucket="gone")
    child = run.start()
    _wait_until_logged(run.runs, AT_WORK["export"])
    run.store.remove(*(entry.name for entry in run.store.list()))
    server.client.remove_bucket("gone")
    _one_error(child, "there is no such bucket")
    server.client.make_bucket("gone")
    assert run.finish() == reference.digest
    register = json.loads(run.store.get_bytes("models/digits/register.json")[0])
    assert (register["champion"], len(register["versions"])) == (1, 1)


def _one_error(child: subprocess.Popen[str], said: str) -> None:
    """Wait for the end of a run whose step register could not reach the store."""
    _, errors = child.communicate(timeout=600)
    assert child.returncode == 2, errors
    assert errors.startswith("error: register: ")
    assert errors.count("\n") == 1
    assert said in errors


def _kill_step(runs: Path, step: str, after: float) -> None:
    """Kill the process of a step some seconds after its start, or that of the next step if it has ended by then."""
    while True:
        process = _wait_for_step(runs, step)
        time.sleep(after)
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            step, after = "", 0
        else:
            return


def _wait_for_step(runs: Path, step: str) -> int:
    """Wait for the process of a step, or of any if `step` is empty, and return its id."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if found := step_processes(runs, step):
            return found[0]
        time.sleep(0.01)
    raise AssertionError(f"no step {step} runs")


def _wait_until_gone(runs: Path) -> None:
    """Wait until no process works in the folder."""
    deadline = time.monotonic() + 300
    while has_processes(runs):
        assert time.monotonic() < deadline, "a step outlives its run"
        time.sleep(0.1)


def _reached(runs: Path) -> str | None:
    """Return the last step that a run began."""
    for folder in runs.glob("2*"):
        log = (folder / "kfp.log").read_text() if (folder / "kfp.log").is_file() else ""
        begun = re.findall(r"Executing task \S*'(\w+)'", log)
        return next((step for step in reversed(begun) if step != "finish"), None)
    return None


def _wait_until_logged(runs: Path, pattern: str) -> None:
    """Wait until the log of the run matches."""
    deadline = time.monotonic() + 300
    while not any(re.search(pattern, log.read_text()) for log in runs.glob("2*/kfp.log")):
        assert time.monotonic() < deadline, f"{pattern} was not seen"
        time.sleep(0.1)


def _note(seen: dict[str, Any]) -> None:
    """Store a result of `make test-faults`."""
    if "FAULT_MOMENTS" in os.environ:
        with open(RESULTS, "a") as file:
            file.write(json.dumps(seen) + "\n")
