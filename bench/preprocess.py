"""Seconds of preprocess on MNIST, and its peak memory at 60,000, 600,000 and 6,000,000 generated images.

python bench/preprocess.py                          # all of it: 5 minutes and 22 GB of scratch, removed afterwards
python bench/preprocess.py --images 60000 600000    # smaller sets only

The generated images are 28 x 28 random pixels in the files of MNIST, one in a hundred a copy of another. Each run is a
process of its own; its seconds include Python's start and the imports.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from measure import ROOT, median, peak_memory_of, write_result

RUNS = 5
BLOCK = 10_000
BYTES_PER_IMAGE = 3_700  # source, its copy in the raw artifact, buffer and shards

DOWNLOAD = """
import sys
from components.download import download
from components.resolve import resolve
from components.shared.parameters.preparation import ReadingRecipe
version = resolve(graph="training", data=sys.argv[1], options={}).version
download(data=sys.argv[1], version=version, recipe=ReadingRecipe().text(), needs_labels=True, raw=sys.argv[2])
"""
PREPROCESS = """
import sys
from components.preprocess import preprocess
from components.shared.parameters.preparation import PreprocessRecipe
preprocess(raw=sys.argv[1], recipe=PreprocessRecipe().text(), prepared_by="", dataset=sys.argv[2])
"""


def main() -> None:
    """Measure, print, and write `bench/results/preprocess.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="*", default=[60_000, 600_000, 6_000_000], metavar="N")
    parser.add_argument("--scratch", type=Path, default=ROOT / "build", help="folder for the scratch files")
    arguments = parser.parse_args()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.scratch, prefix="bench-") as scratch:
        document = {
            "mnist": _mnist(Path(scratch)),
            "generated": [_generated(Path(scratch), n) for n in arguments.images],
        }
    print(write_result("preprocess", document).relative_to(ROOT))


def _mnist(scratch: Path) -> dict[str, Any]:
    _run(DOWNLOAD, "mnist", scratch / "raw")
    runs = [_preprocess(scratch / "raw", scratch / "dataset") for _ in range(RUNS)]
    result = {"median_seconds": median(run["seconds"] for run in runs), "runs": runs}
    print(f"mnist: median {result['median_seconds']} s")
    return result


def _generated(scratch: Path, num_images: int) -> dict[str, Any]:
    needed, free = num_images * BYTES_PER_IMAGE, shutil.disk_usage(scratch).free
    if free < needed:
        raise SystemExit(
            f"{num_images:,} images need {needed / 1e9:.0f} GB, {scratch} has {free / 1e9:.0f}; use --scratch"
        )
    source = scratch / "source"
    source.mkdir()
    _write_split(source, "train", num_images * 5 // 6, seed=1)
    _write_split(source, "t10k", num_images - num_images * 5 // 6, seed=2)
    _run(DOWNLOAD, source.as_uri(), scratch / "raw")
    shutil.rmtree(source)
    run = {"images": num_images, **_preprocess(scratch / "raw", scratch / "dataset")}
    print(f"{num_images:,} images: {run['seconds']} s, peak memory {run['peak_memory_mib']} MiB")
    return run


def _preprocess(raw: Path, dataset: Path) -> dict[str, Any]:
    seconds, peak = _run(PREPROCESS, raw, dataset)
    document = json.loads((dataset / "dataset.json").read_bytes())
    shutil.rmtree(dataset)
    return {
        "seconds": round(seconds, 2),
        "own_seconds": document["seconds"]["preprocess"],
        "peak_memory_mib": round(peak / 2**20, 1),
        "duplicates": document["duplicates"],
    }


def _run(code: str, *words: object) -> tuple[float, int]:
    seconds, peak, _ = peak_memory_of([sys.executable, "-c", code, *map(str, words)])
    return seconds, peak


def _write_split(folder: Path, prefix: str, count: int, *, seed: int) -> None:
    """Write `count` images and labels as the two IDX files of an MNIST split, block by block."""
    random = np.random.default_rng(seed)
    copied = np.random.default_rng(0).integers(0, 256, (100, 28, 28), dtype=np.uint8)
    with (
        open(folder / f"{prefix}-images-idx3-ubyte", "wb") as images,
        open(folder / f"{prefix}-labels-idx1-ubyte", "wb") as labels,
    ):
        images.write(np.array([0x803, count, 28, 28], ">i4").tobytes())
        labels.write(np.array([0x801, count], ">i4").tobytes())
        for start in range(0, count, BLOCK):
            rows = min(BLOCK, count - start)
            pixels = random.integers(0, 256, (rows, 28, 28), dtype=np.uint8)
            pixels[::100] = copied[random.integers(0, len(copied), len(pixels[::100]))]
            images.write(pixels.tobytes())
            labels.write((np.arange(start, start + rows) % 10).astype(np.uint8).tobytes())


if __name__ == "__main__":
    main()
