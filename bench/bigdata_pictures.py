"""Write a plain tar of JPEGs of 96 x 96 pixels for bench/bigdata.py, with the place of each in `<tar>.npy`.

python bench/bigdata_pictures.py FILE.tar COUNT perturbed|natural

They are cut at native scale from scikit-learn's two photographs: perturbed ones have noise by a seed, natural ones
none, but each its own place there. No two are equal. Their names, `<class>/<number>.jpg`, suit graph `bigdata` and
WebDataset.
"""

import io
import os
import sys
import tarfile
from collections.abc import Iterator
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

EDGE, CLASSES, BATCH = 96, 10, 500
NOISE = 6
QUALITY = {"perturbed": 93, "natural": 95}  # for 4 KB and more on average
PHOTOGRAPHS = load_sample_images().images
FIELD = np.random.default_rng(0).integers(-NOISE, NOISE + 1, (1024, 1024, 3)).astype(np.int16)


def main() -> None:
    """Write the tar, with the CPUs that there are."""
    path, count, kind = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    places: list[tuple[int, int]] = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar, Pool(os.cpu_count()) as pool:
        for batch in pool.imap(partial(_encoded, kind, count), range(0, count, BATCH)):
            for content in batch:
                number = len(places)
                member = tarfile.TarInfo(f"{number % CLASSES}/{number:08}.jpg")
                member.size = len(content)
                places.append((tar.offset + tarfile.BLOCKSIZE, member.size))
                tar.addfile(member, io.BytesIO(content))
    np.save(f"{path}.npy", np.array(places, np.int64))


def _encoded(kind: str, count: int, first: int) -> list[bytes]:
    cut = _natural if kind == "natural" else _perturbed
    return [_jpeg(pixels, QUALITY[kind]) for pixels in cut(range(first, min(count, first + BATCH)))]


def _perturbed(numbers: range) -> Iterator[NDArray[np.uint8]]:
    random = np.random.default_rng(numbers.start)
    for number in numbers:
        photograph = PHOTOGRAPHS[number % 2]
        top, left = (int(random.integers(0, edge - EDGE)) for edge in photograph.shape[:2])
        above, before = random.integers(0, len(FIELD) - EDGE, 2)
        noise = FIELD[above : above + EDGE, before : before + EDGE]
        pixels = photograph[top : top + EDGE, left : left + EDGE] + noise
        yield np.clip(pixels, 0, 255).astype(np.uint8)


def _natural(numbers: range) -> Iterator[NDArray[np.uint8]]:
    height, width = (edge - EDGE for edge in PHOTOGRAPHS[0].shape[:2])
    if numbers.stop > 2 * height * width:
        raise SystemExit(f"the photographs have {2 * height * width:,} places, not {numbers.stop:,}")
    for number in numbers:
        # A step that has no divisor in common with the places visits each once, and neighbours are far apart.
        place = number // 2 * 104_729 % (height * width)
        top, left = divmod(place, width)
        yield PHOTOGRAPHS[number % 2][top : top + EDGE, left : left + EDGE]


def _jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


if __name__ == "__main__":
    main()
