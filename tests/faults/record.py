"""The kinds of faults, what is right in each, and the record of `make test-faults`: bench/results/faults.jsonl.

`make test` tries some of each kind; with FAULT_MOMENTS in the environment, the tests in this folder try all.
"""

import json
import os

from tests.conftest import ROOT

IS_SWEEP = "FAULT_MOMENTS" in os.environ
MOMENTS = int(os.environ.get("FAULT_MOMENTS", "1"))  # at which runs are killed
BIGDATA_MOMENTS = min(20, MOMENTS)  # at which those of graph bigdata are
RESULTS = ROOT / "bench" / "results" / "faults.jsonl"
KINDS = {  # kind -> what is right, as docs/benchmarks.md has it
    "kill": "a rerun ends in the same weights, with one version and no garbage",
    "big data kill": "a rerun ends in the same dataset and weights, with each whole unit taken up and no garbage",
    "bad network": "the run ends in the same weights, and registers them once",
    "keys revoked": "one error; a rerun ends in the same weights",
    "bucket deleted": "one error; a rerun ends in the same weights",
    "full disk": "one error that names the disk, nothing half-written; with room, a rerun ends in the same weights",
    "no conditions": "one error, nothing registered; with a store that has them, a rerun ends in the same weights",
    "lost object": "the object is named, or not needed; nothing else is harmed",
    "another user": "S3 asks for keys; no other port or socket answers HTTP or gRPC",
    "hop": "only addresses that may be on the way are connected to; the others are refused in one line",
    "hostile archive": "one error, nothing half-written",
    "hostile picture": "left out by name, or one error",
}


def note(kind: str, **seen: object) -> None:
    """Record a case that went as is right, if this is the sweep."""
    assert kind in KINDS, kind
    if IS_SWEEP:
        with open(RESULTS, "a") as file:
            file.write(json.dumps({"fault": kind, **seen}) + "\n")
