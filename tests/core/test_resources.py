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


def test_memory_follows_the_cgroup(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable: 5000 kB\n")
    assert free_memory(tmp_path, meminfo) == 5000 * 1024
    for name, text in {"max": "max", "current": "700000", "stat": "anon 3\ninactive_file 100000\n"}.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert free_memory(tmp_path, meminfo) == 5000 * 1024
    (tmp_path / "memory.max").write_text("1000000\n")
    assert free_memory(tmp_path, meminfo) == 400_000
    assert total_memory(tmp_path, meminfo) == 1_000_000
    assert total_memory(tmp_path / "absent", meminfo) == 9000 * 1024
