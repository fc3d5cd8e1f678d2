"""Graph bigdata killed at any moment: it ends in the same dataset and weights, and takes up what was done."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from components.shared.data.sources.digits import read_digits
from components.shared.storage.client import Store, open_store
from components.shared.storage.conditions import PROBE
from runner.registry.models import prune
from tests.conftest import ROOT
from tests.faults.bigdata_run import STEPS
from tests.faults.record import BIGDATA_MOMENTS, note
from tests.servers.s3_server import BUCKET, S3Server

pytestmark = pytest.mark.slow

URI = f"s3://{BUCKET}/bigdata-kills"  # of all runs, for the document names it
ATTEMPTS = 4  # at a moment, each in half the time of the one before: a run may be faster than the reference


class Whole(NamedTuple):
    """A run without faults: what it ends in, and the seconds of its steps."""

    result: dict[str, Any]
    seconds: dict[str, float]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Small pictures in folders of their classes, some of them copies."""
    folder = tmp_path_factory.mktemp("source")
    pixels, labels = read_digits()
    for number, (image, label) in enumerate(zip(pixels[:900].reshape(-1, 8, 8), labels, strict=False)):
        path = folder / str(label) / f"{number:04}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray((image * 255 / 16).astype(np.uint8)).save(path)
    for label in range(10):
        first = min((folder / str(label)).iterdir())
        shutil.copy(first, first.with_name("9999.png"))
    return folder.as_uri()


@pytest.fixture
def store(server: S3Server) -> Iterator[Store]:
    """The store of all runs, which is empty before and after each."""
    store = open_store(URI, server.environment)
    assert not list(store.list())
    yield store
    store.remove(*(entry.name for entry in store.list()))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, server: S3Server, source: str) -> Whole:
    begun: dict[str, float] = {}
    with started(tmp_path_factory.mktemp("whole"), server, source) as child:
        assert child.stdout
        for line in child.stdout:
            if line.startswith("begin "):
                begun[line.split()[1]] = time.monotonic()
            last = line
    assert child.returncode == 0
    store, ends = open_store(URI, server.environment), [*[*begun.values()][1:], time.monotonic()]
    store.remove(*(entry.name for entry in store.list()))
    result = json.loads(last)
    assert result.pop("reused") == 0
    return Whole(result, {step: end - begin for (step, begin), end in zip(begun.items(), ends, strict=True)})


def started(folder: Path, server: S3Server, source: str) -> subprocess.Popen[str]:
    """Start a run whose local files, cache and scratch are all in a folder."""
    folder.mkdir(exist_ok=True)
    variables = {**server.environment, "XDG_CACHE_HOME": str(folder / "cache"), "TMPDIR": str(folder)}
    command = [sys.executable, "-m", "tests.faults.bigdata_run", str(folder), source, URI]
    environment = {**os.environ, **variables, "TORCH2KUBEFLOW_SHARD_CACHE_MIB": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def killed_in(child: subprocess.Popen[str], step: str, after: float) -> bool:
    """Kill a run some seconds after a step's begin; return whether it was still in that step or a later one."""
    with child:
        assert child.stdout
        for line in child.stdout:
            if line == f"begin {step}\n":
                time.sleep(after)
                child.kill()
    return child.returncode == -signal.SIGKILL


def units(store: Store) -> int:
    """The number of units that are there whole."""
    return sum(entry.name.endswith(".json") for entry in store.list("units"))


@pytest.mark.parametrize("number", range(BIGDATA_MOMENTS))
def test_a_killed_run_ends_in_the_same_data_and_weights(
    tmp_path: Path, server: S3Server, source: str, store: Store, whole: Whole, number: int
) -> None:
    chance = random.Random(number)
    step, are_files_lost = STEPS[(number + 1) % len(STEPS)], number // len(STEPS) % 2 == 1
    share = chance.uniform(0.03, 0.95)
    for _ in range(ATTEMPTS):
        if is_killed := killed_in(started(tmp_path / "run", server, source), step, share * whole.seconds[step]):
            break
        shutil.rmtree(tmp_path / "run")
        store.remove(*(entry.name for entry in store.list()))
        share /= 2  # it was faster than the reference
    assert is_killed
    prepared = units(store)
    if are_files_lost:
        shutil.rmtree(tmp_path / "run")
    with started(tmp_path / "run", server, source) as child:
        output, _ = child.communicate(timeout=600)
    assert child.returncode == 0
    result = json.loads(output.splitlines()[-1])
    assert (result.pop("reused"), result) == (prepared, whole.result)
    assert prepared == units(store) or step in ("partition", "prepare")
    removed = list(prune(store, days=0, keep=None, is_dry=False))
    assert removed and {entry.name for entry in store.list()} <= {PROBE} and not list(store.unfinished_uploads())
    note("big data kill", step=step, share=round(share, 3), files_lost=are_files_lost, units_taken_up=prepared)
