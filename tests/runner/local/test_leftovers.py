"""What runs that were killed left behind is tidied by the next one."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, run_local


@pytest.mark.slow
def test_the_next_run_tidies_what_killed_runs_left(tmp_path: Path) -> None:
    runs, temporary = tmp_path / "runs", tmp_path / "tmp"
    temporary.mkdir()
    killed, done, theirs = (runs / name for name in ("20260101-000000-2", "20260102-000000", "20260103-pictures"))
    for folder in (killed, done, theirs):
        (folder / "tmp" / "work").mkdir(parents=True)
        (folder / "train" / "model.partial").mkdir(parents=True)
        (folder / "train" / "metrics.json.7.partial").touch()
        (folder / "train" / "log").touch()
    (done / "summary.json").touch()
    os.symlink("20260101-000000-2", runs / "latest.123")
    (runs / "latest.txt").touch()
    (runs / "s3" / "tls").mkdir(parents=True)
    for name in ("s3/keys.json.7.partial", "s3/tls/server.key.7.partial"):
        (runs / name).touch()
    command = [sys.executable, "pipeline.py", "local", "--runs", str(runs), "data=digits"]
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "TMPDIR": str(temporary)}, stdout=subprocess.DEVNULL
    ) as run:
        end = time.monotonic() + 300
        while not list(runs.glob("*/kfp.log")):
            assert time.monotonic() < end
            time.sleep(0.01)
        run.kill()
    kept = {path for folder in (done, theirs) for path in folder.rglob("*")}
    failed = run_local(runs, "data=file:///no/such/folder", TMPDIR=str(temporary))
    assert (failed.returncode, failed.stderr.count("\n")) == (2, 1), failed.stderr
    assert {path for folder in (killed, done, theirs) for path in folder.rglob("*")} == kept | {
        killed / "train",
        killed / "train" / "log",
    }
    assert not (runs / "latest.123").is_symlink() and (runs / "latest.txt").exists()
    assert not list((runs / "s3").rglob("*.partial")) and not list((runs / "s3").glob("*.sock"))
    assert not (set(runs.glob("*/tmp")) - kept) and not list(temporary.iterdir())
