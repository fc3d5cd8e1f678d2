"""Whole runs of the digits, each with a store of its own on a server, for tests of faults."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from components.shared.data.dataset_store import SHARDS, read_recipe
from components.shared.storage.client import Store, open_store
from tests.conftest import ROOT
from tests.servers.s3_server import BUCKET, S3Server

WORDS = ("data=digits", "epochs=12", "batch_size=64", "min_accuracy=0.9", "min_recall=0.7", "checkpoint_seconds=1")
SHORT_WORDS = ("data=digits", "epochs=2", "batch_size=64", "min_accuracy=0", "min_recall=0", "checkpoint_seconds=1")


class Run:
    """A run of the digits in `folder`, with a store of its own on a server."""

    words = WORDS

    def __init__(self, folder: Path, name: str, server: S3Server, url: str = "", bucket: str = BUCKET) -> None:
        self.runs, self.uri = folder / "runs", f"s3://{bucket}/{name}".rstrip("/")
        self.environment = server.environment | ({"AWS_ENDPOINT_URL_S3": url} if url else {})
        self.direct = server.environment
        self.store: Store = open_store(self.uri, self.direct)

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "pipeline.py", "local", "--runs", str(self.runs), f"store={self.uri}", *self.words]
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


class ShortRun(Run):
    """A run whose training takes two seconds."""

    words = SHORT_WORDS


class Reference(NamedTuple):
    """A run without faults: the digest of its weights, its seconds and those of its steps."""

    run: Run
    digest: str
    seconds: float
    steps: dict[str, float]


def fail_in_one_line(child: subprocess.Popen[str], step: str, said: str) -> None:
    """Wait for the end of a run whose step could not use the store."""
    _, errors = child.communicate(timeout=600)
    assert child.returncode == 2, errors
    assert errors.startswith(f"error: {step}: ") and errors.count("\n") == 1, errors
    assert said in errors


def wait_until_logged(runs: Path, pattern: str) -> None:
    """Wait until the log of the run matches."""
    deadline = time.monotonic() + 300
    while not any(re.search(pattern, log.read_text()) for log in runs.glob("2*/kfp.log")):
        assert time.monotonic() < deadline, f"{pattern} was not seen"
        time.sleep(0.1)


def last_step(runs: Path) -> str | None:
    """Return the last step that a run began."""
    for folder in runs.glob("2*"):
        log = (folder / "kfp.log").read_text() if (folder / "kfp.log").is_file() else ""
        begun = re.findall(r"Executing task \S*'(\w+)'", log)
        return next((step for step in reversed(begun) if step != "finish"), None)
    return None
