"""Seconds of the cluster's verbs on this machine: `python bench/cluster.py`.

`compile` is the whole command. `upload` with nothing to upload is the whole command, too, against the tests' server of
KFP's API on the loopback interface; what that server took for its answers is told beside it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from measure import ROOT, median, write_result

from tests.servers.kfp_server import KfpServer, kfp_server


def main() -> None:
    """Measure, print, and write `bench/results/cluster.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs of each verb")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as scratch, kfp_server() as server:
        compiled = [_seconds("compile", "--output", f"{scratch}/pipeline.yaml") for _ in range(runs)]
        _seconds("upload", "--host", server.url)
        uploads = [_nothing_to_upload(server) for _ in range(runs)]
    document = {
        "compile_seconds": median(compiled),
        "upload_nothing_seconds": median(run["seconds"] for run in uploads),
        "upload_nothing_requests": uploads[0]["requests"],
        "import_seconds": median(_imports() for _ in range(runs)),
        "raw": {"compile": compiled, "upload": uploads},
    }
    print(write_result("cluster", document).relative_to(ROOT), document)


def _nothing_to_upload(server: KfpServer) -> dict[str, Any]:
    before = len(server.requests)
    seconds = _seconds("upload", "--host", server.url)
    return {"seconds": seconds, "requests": len(server.requests) - before}


def _seconds(*words: str) -> float:
    started = time.monotonic()
    subprocess.run([sys.executable, "pipeline.py", *words], cwd=ROOT, check=True, capture_output=True, env=_bare())
    return round(time.monotonic() - started, 3)


def _imports() -> float:
    """What any verb takes before it does anything: Python and its imports."""
    started = time.monotonic()
    subprocess.run([sys.executable, "pipeline.py", "--help"], cwd=ROOT, check=True, capture_output=True, env=_bare())
    return round(time.monotonic() - started, 3)


def _bare() -> dict[str, str]:
    """The environment without anything that names another KFP or cluster."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("KF", "KUBE"))}


if __name__ == "__main__":
    main()
