"""Describe the machine, measure child processes, and write results: shared by the benches.

Nothing large is imported here: the peak memory of a child is at least that of its parent when it started the child.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["ROOT", "hardware", "median", "peak_memory_of", "versions", "write_result"]

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for the benches that import components
LIBRARIES = ("torch", "torchvision", "numpy", "pillow", "simplejpeg", "scikit-learn", "onnx", "onnxruntime", "kfp")


def hardware() -> dict[str, Any]:
    """Describe the machine: CPU model, cores that this process may use, memory in GiB, Python and platform."""
    return {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Return the installed versions of the libraries whose speed the benches depend on."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_result(name: str, document: Mapping[str, Any]) -> Path:
    """Write `bench/results/<name>.json`: the document with the machine, the library versions and the day (UTC)."""
    path = ROOT / "bench" / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    day = datetime.now(UTC).date().isoformat()
    whole = {"date": day, "hardware": hardware(), "versions": versions(), **document}
    path.write_text(json.dumps(whole, indent=2, allow_nan=False) + "\n")
    return path


def peak_memory_of(command: Sequence[str]) -> tuple[float, int, str]:
    """Run a command in the repository's root; return its wall seconds, peak resident memory in bytes, and stdout.

    Raises CalledProcessError if the command fails; its stderr is passed through.
    """
    started = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output)
    return time.monotonic() - started, usage.ru_maxrss * 1024, output


def _field(path: str, name: str) -> str | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), None)
