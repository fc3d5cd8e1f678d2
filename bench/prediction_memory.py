"""Seconds and peak memory of `predict` on 50,000, 400,000 and 1,000,000 PNG files in an archive.

python bench/prediction_memory.py                     # all of it: half an hour and 4 GB of scratch
python bench/prediction_memory.py --pictures 50000    # smaller sets only

The pictures are scikit-learn's digits at 28 x 28 pixels, moved and in other shades, so that no two are equal. Each run
is the verb in a process of its own, by LeNet-5 with random weights; its seconds include Python's start and the imports.
"""

import argparse
import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from measure import ROOT, peak_memory_of, write_result

SIDE, SHADES = 28, 32
BYTES_PER_PICTURE = 4_000  # a member of the archive twice, for `predict` copies it, and a row in Parquet and CSV


def main() -> None:
    """Measure, print, and write `bench/results/prediction-memory.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, nargs="*", default=[50_000, 400_000, 1_000_000], metavar="N")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        _in_a_process(_write_package, Path(scratch) / "package")
        for count in arguments.pictures:
            rows.append(_predict(Path(scratch), count))
            print(rows[-1], flush=True)
    print(write_result("prediction-memory", {"network": "lenet5", "rows": rows}).relative_to(ROOT))


def _predict(scratch: Path, count: int) -> dict[str, Any]:
    needed, free = count * BYTES_PER_PICTURE, shutil.disk_usage(scratch).free
    if free < needed:
        raise SystemExit(f"{count:,} pictures need {needed / 1e9:.0f} GB, {scratch} has {free / 1e9:.0f}; set TMPDIR")
    archive, output = scratch / "pictures.tar", scratch / "predictions"
    _in_a_process(_write_archive, archive, count)
    verb = ["predict", str(archive), "--model", str(scratch / "package"), "--output", str(output)]
    seconds, peak, _ = peak_memory_of([sys.executable, "pipeline.py", *verb])
    found = json.loads((output / "predictions.json").read_bytes())
    assert (found["rows"], found["errors"]) == (count, 0)
    row = {
        "pictures": count,
        "seconds": round(seconds, 1),
        "program_seconds": round(found["seconds"]["program"], 1),
        "peak_memory_mib": round(peak / 2**20, 1),
        "parts": len(found["parts"]),
        "archive_bytes": archive.stat().st_size,
        "load": round(os.getloadavg()[2], 1),  # of 15 minutes: what else the machine does
    }
    archive.unlink()
    shutil.rmtree(output)
    return row


def _in_a_process(action: Callable[..., None], *arguments: object) -> None:
    """Do what needs much memory in a process of its own: the peak of a child is at least that of its parent."""
    process = get_context("spawn").Process(target=action, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


def _write_package(folder: Path) -> None:
    from packages import write_package

    write_package(folder, "lenet5")


def _write_archive(path: Path, count: int) -> None:
    """Write so many pictures, no two of which are equal, into a tar archive."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits().images.astype(np.uint8) * 4  # 0..64
    large = np.repeat(np.repeat(digits, 3, axis=1), 3, axis=2)
    with tarfile.open(path, "w") as archive:
        for number in range(count):
            digit, variant = number % len(large), number // len(large)
            place, shade = divmod(variant, SHADES)
            top, left = divmod(place, 5)  # of 24 pixels in 28
            pixels = np.full((SIDE, SIDE), shade, np.uint8)
            pixels[top : top + 24, left : left + 24] += large[digit]
            content = io.BytesIO()
            Image.fromarray(pixels).save(content, "PNG", compress_level=1)
            member = tarfile.TarInfo(f"{number // 10_000:03}/{number:07}.png")
            member.size = content.tell()
            content.seek(0)
            archive.addfile(member, content)


if __name__ == "__main__":
    main()
