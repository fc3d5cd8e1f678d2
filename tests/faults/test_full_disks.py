"""Whole runs on a disk that is full at some point: of the runner, its S3 server, the steps, or all of them."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import run_local
from tests.faults.record import IS_SWEEP, note
from tests.faults.whole_runs import SHORT_WORDS, last_step

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a disk of a given size"),
]
# In KiB. A run of these words needs 8.5 MiB, most of them for what its S3 server stores.
SIZES = (16, 128, 600, 2500, 4000, 5500, 6500, 7500, 8000)
ENOUGH = 200_000


@contextmanager
def disk_of(folder: Path, size: int) -> Iterator[Callable[[int], None]]:
    """Mount a disk of so many KiB, and yield a function that changes its size."""

    def mount(size: int, *options: str) -> None:
        settings = ",".join([*options, f"size={size}k", "mode=700"])
        subprocess.run(["mount", "-t", "tmpfs", "-o", settings, "tmpfs", folder], check=True)

    folder.mkdir()
    mount(size)
    try:
        yield lambda size: mount(size, "remount")
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def weights_of(runs: Path) -> str:
    return str(json.loads((runs / "latest" / "model" / "model.json").read_bytes())["weights_sha256"])


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the weights of a run that has room."""
    runs = tmp_path_factory.mktemp("room") / "runs"
    assert run_local(runs, *SHORT_WORDS).returncode == 0
    return weights_of(runs)


@pytest.mark.parametrize("size", SIZES if IS_SWEEP else [5500])
def test_a_full_disk_is_named_and_a_rerun_completes(tmp_path: Path, expected: str, size: int) -> None:
    disk = tmp_path / "disk"
    runs = disk / "runs"
    with disk_of(disk, size) as grow:
        failed = run_local(runs, *SHORT_WORDS, XDG_CACHE_HOME=str(disk / "cache"))
        assert failed.returncode == 2, failed.stderr
        assert failed.stderr.startswith("error: ") and failed.stderr.count("\n") == 1, failed.stderr
        assert str(disk) in failed.stderr and "free some space there" in failed.stderr
        assert not list(disk.rglob("*.partial"))
        for folder in runs.glob("2*/*/*/*/"):  # the artifacts: each is whole, with its document
            assert list(folder.glob("*.json")) or list(folder.rglob("*.html")), folder
        met = last_step(runs) or "the start"
        grow(ENOUGH)
        again = run_local(runs, *SHORT_WORDS, XDG_CACHE_HOME=str(disk / "cache"))
        assert (again.returncode, again.stderr) == (0, "")
        assert weights_of(runs) == expected
        summary = json.loads((runs / "latest" / "summary.json").read_bytes())
        assert summary["registered"]["version"] == 1, "no version was begun without space"
    note("full disk", kib=size, **{"in": met}, said=re.sub(rf"{disk}[^\s;:]*", "DISK", failed.stderr.strip()))
