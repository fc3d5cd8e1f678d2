"""The limits of a cgroup, read from files like those of the kernel."""

import os
from pathlib import Path

import pytest

from components.shared.core.resources import cpu_count, free_memory, total_memory


@pytest.mark.parametrize(("quota", "expected"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None)])
def test_cpu_count_follows_the_cgroup(tmp_path: Path, quota: str, expected: int | None) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert cpu_count(tmp_path) == (expected or len(os.sched_getaffinity(0)))


def test_cpu_count_follows_cgroup_version_1(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu_count(tmp_path) == 1
    assert cpu_count(tmp_path / "none") == len(os.sched_getaffinity(0))


NAMES = {  # of the files with limit and usage, and of the caches of files in memory.stat
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}
UNLIMITED = {1: str(2**63 - 4096), 2: "max"}  # as the kernel writes it


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    """The memory of a machine: 9,000 KiB, of which 5,000 are available."""
    path = tmp_path / "meminfo"
    path.write_text("MemTotal: 9000 kB\nMemAvailable: 5000 kB\n")
    return path


def make_group(root: Path, version: int, path: str, limit: str = "", current: int = 0, caches: int = 0) -> None:
    """Write a group's files as the kernel has them."""
    folder = root / {1: "memory", 2: "."}[version] / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in zip(NAMES[version], (limit or UNLIMITED[version], str(current), ""), strict=True):
        if text:
            (folder / name).write_text(f"{text}\n")
    other = "inactive_file 1\n" if version == 1 else ""  # without that of the groups in it
    (folder / "memory.stat").write_text(f"rss 3\n{other}{NAMES[version][2]} {caches}\n")


def own_group(tmp_path: Path, version: int, path: str) -> Path:
    """Write what /proc/self/cgroup says of a process in this group."""
    lines = {1: f"7:pids:/other\n4:cpu,memory:{path}\n0::/other\n", 2: f"0::{path}\n"}
    (tmp_path / "own").write_text(lines[version])
    return tmp_path / "own"


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("path", ["/", "/kubepods/burstable/pod7/main", "/../../pod7"])
def test_memory_follows_the_cgroup_of_a_container(tmp_path: Path, meminfo: Path, version: int, path: str) -> None:
    root, own = tmp_path / "cgroup", own_group(tmp_path, version, path)
    make_group(root, version, "", current=700_000, caches=100_000)
    assert free_memory(root, meminfo, own) == 5000 * 1024
    assert total_memory(root, meminfo, own) == 9000 * 1024
    make_group(root, version, "", "1000000", 700_000, 100_000)
    assert free_memory(root, meminfo, own) == 400_000
    assert total_memory(root, meminfo, own) == 1_000_000


@pytest.mark.parametrize("version", [1, 2])
def test_memory_follows_the_narrowest_cgroup_around(tmp_path: Path, meminfo: Path, version: int) -> None:
    root, own = tmp_path / "cgroup", own_group(tmp_path, version, "/slice/job")
    make_group(root, version, "")
    make_group(root, version, "slice", "3000000", 2_900_000)
    make_group(root, version, "slice/job", "2000000", 500_000)
    make_group(root, version, "neighbour", "1", 1)
    assert total_memory(root, meminfo, own) == 2_000_000
    assert free_memory(root, meminfo, own) == 100_000
    make_group(root, version, "slice", "3000000", 3_200_000)
    assert free_memory(root, meminfo, own) == 0


def test_memory_is_that_of_the_machine_without_cgroups(tmp_path: Path, meminfo: Path) -> None:
    assert free_memory(tmp_path / "absent", meminfo, tmp_path / "none") == 5000 * 1024
    assert total_memory(tmp_path / "absent", meminfo, tmp_path / "none") == 9000 * 1024
