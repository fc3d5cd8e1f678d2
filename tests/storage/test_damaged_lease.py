"""A damaged lease counts as not renewed, and no damage ends the thread that watches it."""

import json
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from components.shared.storage import lease
from components.shared.storage.lease import Lease, LeaseDocument
from tests.conftest import ROOT
from tests.fuzz.shelf import Shelf

NAME = "jobs/a/lease.json"
SCRIPT = """
import time
from components.shared.storage.lease import start_vital
print("begun")
start_vital(print, "works").join()
start_vital(int, "no number")
time.sleep(60)
print("went on")
"""
DAMAGES = [
    b"",
    b"\xff",
    b"[]",
    b"{}",
    *[
        json.dumps({"format": "torch2kubeflow/lease", "state": "held", "renewal": "1", **fields}).encode()
        for fields in (
            {"seconds": 1},
            {"seconds": "1", "lapse_seconds": 1},
            {"seconds": 1e300, "lapse_seconds": 1},
            {"seconds": 0, "lapse_seconds": 1},
            {"seconds": -1, "lapse_seconds": 1},
            {"seconds": 1, "lapse_seconds": 1e300},
            {"seconds": 1, "lapse_seconds": -1},
            {"seconds": 1, "lapse_seconds": 1, "state": "free"},
        )
    ],
]


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A store, for leases that lapse at once unless they are renewed or say otherwise."""
    monkeypatch.setattr(lease, "SECONDS", 0.01)
    monkeypatch.setattr(lease, "LAPSE_SECONDS", 0.1)
    return Shelf()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_lease_lapses_and_is_said_once(shelf: Any, damage: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    shelf.objects[NAME] = damage
    stopped = threading.Event()
    Lease(shelf, NAME).watch(stopped.set)
    assert stopped.wait(20)
    said = capsys.readouterr().out
    assert said.startswith("[log] the lease is damaged and counts as not renewed: ") and said.count("\n") == 1
    assert LeaseDocument.parse(shelf.objects[NAME], NAME).state == "lapsed", "for all readers"


def test_the_holder_replaces_a_damaged_lease(shelf: Any) -> None:
    lease.renew(shelf, NAME, 0.01, 100)
    seen = Lease(shelf, NAME)
    assert not seen.is_lapsed()
    shelf.objects[NAME] = b"{"
    time.sleep(0.11)
    assert not seen.is_lapsed(), "it lapses after the seconds that it said when it was intact"
    fresh = Lease(shelf, NAME)
    lease.renew(shelf, NAME, 0.01, 100)
    time.sleep(0.11)
    assert not fresh.is_lapsed()


@pytest.mark.slow
def test_a_process_ends_when_a_vital_thread_dies() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (1, "begun\nworks\n")
    assert done.stderr.startswith("Traceback") and done.stderr.endswith("'no number'\n")
