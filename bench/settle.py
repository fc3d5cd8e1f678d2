"""Memory and disk of joining the units of a data set: rows that no picture has, in units of 512 and of 64.

python bench/settle.py                          # a million rows in each: 6 minutes, 200 MB of disk

It is what step settle does but for the transfers: copies are found, the index is written, and what is dropped of each
shard. A twentieth of the rows repeats another one.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import numpy as np
from measure import write_result

from components.shared.data.dataset import SPLITS, Shard, ShardFile
from components.shared.data.preparation.join import joined
from components.shared.data.preparation.rows import ROW, UNIT_COLUMNS, Rows, write_rows
from components.shared.data.preparation.settle import settle
from components.shared.data.preparation.unit import Unit

SIDE, CLASSES, REPEATED = 224, 1000, 0.05
DIGEST_BYTES = ROW["digest"].itemsize


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1_000_000)
    parser.add_argument("--measured", nargs=2, metavar=("FOLDER", "UNIT"))
    given = parser.parse_args()
    if given.measured:
        folder, unit = given.measured
        print(json.dumps(_measure(Path(folder), given.pictures, int(unit))))
        return
    write_result("settle", {"pictures": given.pictures, "units": [_in_a_process(given.pictures, n) for n in (512, 64)]})


def _in_a_process(pictures: int, unit: int) -> dict[str, Any]:
    """Measure in a process of its own, whose memory no other rows were in."""
    with tempfile.TemporaryDirectory() as folder:
        on_disk = _make(Path(folder), pictures, unit)
        command = [sys.executable, __file__, "--pictures", str(pictures), "--measured", folder, str(unit)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = {"pictures_of_a_unit": unit, "rows": on_disk / pictures, **json.loads(done.stdout)}
    print(found, flush=True)
    return found


def _make(folder: Path, pictures: int, unit: int) -> int:
    """Write the rows of all units; return their bytes."""
    random = np.random.default_rng(0)
    repeated = random.bytes(int(pictures * REPEATED) * DIGEST_BYTES)
    pool = np.frombuffer(repeated, f"V{DIGEST_BYTES}")
    for number, start in enumerate(range(0, pictures, unit)):
        rows = _rows(random, pool, number, min(unit, pictures - start))
        write_rows(folder / f"{number:09}.parquet", [rows], UNIT_COLUMNS)
    return sum(path.stat().st_size for path in folder.iterdir())


def _rows(random: np.random.Generator, pool: Rows, number: int, count: int) -> Rows:
    rows = np.zeros(count, ROW)
    rows["digest"] = np.frombuffer(random.bytes(count * DIGEST_BYTES), f"V{DIGEST_BYTES}")
    again = random.random(count) < REPEATED
    rows["digest"][again] = random.choice(pool, int(again.sum()))
    rows["unit"], rows["channels"] = number, 3
    rows["label"] = random.integers(0, CLASSES, count)
    rows["split"] = random.choice(len(SPLITS), count, p=(0.8, 0.1, 0.1))
    for split in range(len(SPLITS)):
        chosen = rows["split"] == split
        rows["row"][chosen] = np.arange(chosen.sum())
    rows["width"], rows["height"] = random.integers(200, 900, (2, count))
    rows["sums"] = random.integers(0, 255 * SIDE**2, (count, 3))
    rows["squares"] = random.integers(0, 255**2 * SIDE**2, (count, 3))
    return rows


def _measure(folder: Path, pictures: int, unit: int) -> dict[str, Any]:
    units = [
        Unit(number, 3, {split: _shard(split, unit) for split in SPLITS}) for number in range(-(-pictures // unit))
    ]
    before, started = _peak_mib(), time.process_time()
    with tempfile.TemporaryDirectory() as name, _Spilled(folder / "spill") as spilled, joined(folder) as join:
        settle(Path(name), units, join.rows(), (SIDE, SIDE), CLASSES)
        join.repeated()
        join.within_split()
        blocks = {path.suffix: 0 for path in Path(name).iterdir()}
        for path in Path(name).iterdir():
            blocks[path.suffix] += path.stat().st_blocks * 512
    return {
        "memory_mib": round(_peak_mib()),
        "memory_before_mib": round(before),
        "cpu_seconds": round(time.process_time() - started, 1),
        "index": round(blocks[".parquet"] / pictures, 1),
        "left_out": round(blocks[".npy"] / pictures, 1),
        "spilled": round(spilled.most / pictures, 1),
    }


def _shard(split: str, count: int) -> Shard:
    images, labels = (
        ShardFile(path=f"{split}-00000.{what}.npy", sha256="0" * 64, bytes=1) for what in ("images", "labels")
    )
    return Shard(count=count, images=images, labels=labels)


def _peak_mib() -> float:
    return getrusage(RUSAGE_SELF).ru_maxrss / 1024


class _Spilled:
    """The most that a folder held, looked at many times a second."""

    def __init__(self, folder: Path) -> None:
        self.most, self._folder, self._done = 0, folder, threading.Event()

    def __enter__(self) -> "_Spilled":
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            self.most = max(self.most, sum(path.stat().st_size for path in self._folder.glob("*") if path.exists()))


if __name__ == "__main__":
    main()
