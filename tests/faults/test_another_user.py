"""Another user of the machine at every door that a whole run opens: of its server, its steps and their children."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from runner.local.certificates import write_certificates
from tests.conftest import ROOT
from tests.faults.record import IS_SWEEP, note
from tests.step_processes import doors_of, processes_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the doors of processes are read from /proc"),
]
WORDS = ["data=digits", "epochs=8", "batch_size=64", "min_accuracy=0", "min_recall=0"]
GRAPHS = {
    "training": ["threads=1"],
    "sweep": ["parallel=2", 'settings=[{"learning_rate": 0.1}, {"learning_rate": 0.05}]'],
    "distributed": ["nodes=2"],
}
UID = 65534 if os.geteuid() == 0 else 0  # whom the intruder becomes; without root it stays who it is


def doors(runs: Path) -> Iterator[tuple[str, str]]:
    """Yield the name of each process of the runs, and each port and socket at which it listens."""
    for path in processes_of(runs):
        with suppress(OSError):  # it has ended
            name = (path / "comm").read_text().strip()
            yield from ((name, door) for door in doors_of(int(path.name)))


@pytest.mark.parametrize("graph", GRAPHS if IS_SWEEP else ["training"])
def test_no_process_of_a_run_answers_another_user(tmp_path: Path, graph: str) -> None:
    write_certificates(tmp_path / "theirs", "127.0.0.1")
    certificate = b"".join((tmp_path / "theirs" / name).read_bytes() for name in ("server.crt", "server.key"))
    command = [sys.executable, "pipeline.py", "local", "--graph", graph, "--runs", str(tmp_path / "runs")]
    tried: dict[str, str] = {}
    answers: list[list[str]] = []
    with subprocess.Popen([*command, *WORDS, *GRAPHS[graph]], cwd=ROOT, stdout=-3, stderr=-1, text=True) as run:
        while run.poll() is None:
            new = {door: name for name, door in doors(tmp_path / "runs") if door not in tried}
            if new:
                intruder = [sys.executable, str(ROOT / "tests" / "servers" / "intruder.py"), str(UID), *new]
                done = subprocess.run(intruder, input=certificate, capture_output=True, check=True)
                answers += [
                    [new[door], door, request, status] for door, request, status in json.loads(done.stdout)["answers"]
                ]
                tried |= new
            time.sleep(0.05)
        assert (run.returncode, run.stderr.read() if run.stderr else "") == (0, "")
    assert len(tried) >= 10, "the server's doors"
    assert {(status) for *_, status in answers} <= {403, 0}, answers
    assert len({door for _, door, *_ in answers}) <= 1, "only S3 speaks, and asks for keys"
    assert {name for name, *_ in answers} <= {"weed"}
    note("another user", graph=graph, doors=len(tried), of=sorted(set(tried.values())), requests=len(answers))
