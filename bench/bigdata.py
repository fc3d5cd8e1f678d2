"""Pictures per CPU second of `prepare` in 1, 2 and 4 parts, beside decoding and resizing alone, and of `settle`.

python bench/bigdata.py                       # 20,000 and 100,000 pictures: 15 minutes and 4 GB of scratch, removed
python bench/bigdata.py --pictures 5000       # fewer

The pictures are JPEGs of 96 x 96 pixels, quality 90, cut from scikit-learn's two photographs and perturbed by a seed,
so that none is a copy of another. They are read from a folder; the store is a real S3 server on this machine, whose CPU
time does not count. Each part is a process, and the parts run one after the other; imports count.
"""

import argparse
import io
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from measure import ROOT, peak_memory_of, write_result
from PIL import Image
from sklearn.datasets import load_sample_images

from components.shared.parameters.common import PartRecipe
from components.shared.parameters.preparation import PreprocessRecipe
from tests.servers.s3_server import BUCKET, s3_server

SIZE = 64  # pixels to which they are scaled
BYTES_PER_PICTURE = 40_000  # source, and three times its units
PARTITION = """
import sys
from components.bigdata.partition import partition
from components.shared.data.sources.schemes import open_source
from components.shared.parameters.preparation import ReadingRecipe
data, recipe, listing = sys.argv[1:]
version = open_source(data).version()
partition(data=data, version=version, reading=ReadingRecipe().text(), recipe=recipe, listing=listing)
"""
PREPARE = """
import sys
from components.bigdata.prepare import prepare
prepare(listing=sys.argv[1], planned=sys.argv[2], part=sys.argv[3])
"""
SETTLE = """
import sys
from components.bigdata.settle import settle
settle(listing=sys.argv[1], parts=sys.argv[3:], dataset=sys.argv[2])
"""
DECODE = """
import sys
from pathlib import Path
from components.shared.data.decode import decoder
paths = sorted(Path(sys.argv[1]).rglob("*.jpg"))
with decoder(int(sys.argv[2])) as decode_all:
    for start in range(0, len(paths), 1000):
        decode_all([path.read_bytes() for path in paths[start : start + 1000]])
"""


def main() -> None:
    """Measure, print, and write `bench/results/bigdata.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, nargs="*", default=[20_000, 100_000], metavar="N")
    parser.add_argument("--scratch", type=Path, default=ROOT / "build", help="folder for the scratch files")
    arguments = parser.parse_args()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    load, sets = os.getloadavg()[0], []
    for count in arguments.pictures:
        needed, free = count * BYTES_PER_PICTURE, shutil.disk_usage(arguments.scratch).free
        if free < needed:
            raise SystemExit(f"{count:,} pictures need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} are free")
        with tempfile.TemporaryDirectory(dir=arguments.scratch, prefix="bench-") as scratch:
            sets.append(_measure(Path(scratch), count))
    print(write_result("bigdata", {"load": load, "image_size": SIZE, "sets": sets}).relative_to(ROOT))


def _measure(scratch: Path, count: int) -> dict[str, Any]:
    source = scratch / "source"
    size = _write_pictures(source, count)
    found: dict[str, Any] = {"pictures": count, "mean_bytes": round(size / count)}
    found["decode_and_resize"] = _run(DECODE, count, {}, source, SIZE)
    for parts in (1, 2, 4):
        (scratch / f"s3-{parts}").mkdir()
        with s3_server(scratch / f"s3-{parts}") as server:
            found[f"parts_{parts}"] = _prepared(scratch / f"run-{parts}", source, parts, count, server.environment)
        shutil.rmtree(scratch / f"s3-{parts}")
    alone = found["decode_and_resize"]["pictures_per_cpu_second"]
    for parts in (1, 2, 4):
        share = found[f"parts_{parts}"]["pictures_per_cpu_second"] / alone
        found[f"parts_{parts}"]["share_of_decode_and_resize"] = round(share, 3)
    print({name: value for name, value in found.items() if name.startswith("parts") or name == "decode_and_resize"})
    return found


def _prepared(folder: Path, source: Path, parts: int, count: int, variables: Mapping[str, str]) -> dict[str, Any]:
    folder.mkdir()
    recipe = PreprocessRecipe.of(store=f"s3://{BUCKET}/bench", image_size=SIZE).text()
    listing = folder / "listing"
    partition = _run(PARTITION, count, variables, source.as_uri(), recipe, listing)
    runs = [
        _run(PREPARE, count, variables, listing, PartRecipe.of(part=part, parts=parts).text(), folder / f"part{part}")
        for part in range(parts)
    ]
    done = [folder / f"part{part}" for part in range(parts)]
    settle = _run(SETTLE, count, variables, listing, folder / "dataset", *done)
    cpu = sum(run["cpu_seconds"] for run in runs)
    return {
        "pictures_per_cpu_second": round(count / cpu, 1),
        "cpu_seconds": round(cpu, 2),
        "wall_seconds": round(sum(run["wall_seconds"] for run in runs), 2),
        "peak_memory_mib": max(run["peak_memory_mib"] for run in runs),
        "partition": partition,
        "settle": settle,
    }


def _run(code: str, count: int, variables: Mapping[str, str], *words: object) -> dict[str, Any]:
    """Run a program, and return what it took; the program's own CPU time, without that of other processes."""
    os.environ.update(variables)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        wall, peak, _ = peak_memory_of([sys.executable, "-c", code, *map(str, words)])
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{error}: {error.stderr}") from None
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "pictures_per_cpu_second": round(count / cpu, 1),
        "cpu_seconds": round(cpu, 2),
        "wall_seconds": round(wall, 2),
        "peak_memory_mib": round(peak / 2**20, 1),
    }


def _write_pictures(folder: Path, count: int) -> int:
    """Write pictures of ten classes; return their bytes."""
    random, photographs, size = np.random.default_rng(0), load_sample_images().images, 0
    for number in range(count):
        photograph = photographs[number % 2]
        top, left = (int(random.integers(0, edge - 96)) for edge in photograph.shape[:2])
        pixels = photograph[top : top + 96, left : left + 96].astype(np.int16)
        pixels = np.clip(pixels + random.integers(-6, 7, pixels.shape), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=90)
        path = folder / str(number % 10) / f"{number:08}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.getvalue())
        size += file.tell()
    return size


if __name__ == "__main__":
    main()
