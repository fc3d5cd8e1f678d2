"""Images/s of the decoders that could read pictures kept as JPEG: `python bench/jpeg_decoders.py`.

The pictures are parts of scikit-learn's two photographs, each of a place and size of its own, scaled to a short side of
256 pixels and encoded as step preprocess does. Each decoder gives pixels, and then the random crop of 224 x 224 of the
training, in one thread; rounds of all of them take turns, and the median counts. Another thread is watched while one
large picture is decoded: a decoder that keeps Python's lock would need processes. opencv-python-headless is measured if
it is installed; what is missing is said.
"""

import argparse
import io
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from measure import median, write_result
from PIL import Image
from sklearn.datasets import load_sample_images

from components.shared.data.pictures.kept import keep
from components.shared.training.reading.crops import crop_of, draw_box

SIZE = 224
ROUNDS = 9

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def main() -> None:
    """Measure, print, and write `bench/results/jpeg_decoders.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=256, metavar="N")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # torchvision's decoder is deprecated
    pictures = [photograph(number) for number in range(arguments.pictures)]
    found = {name: function for name, function in DECODERS.items() if find_spec(name.partition(" ")[0])}
    for name in DECODERS.keys() - found.keys():
        print(f"{name} is not installed")
    document = {
        "pictures": len(pictures),
        "bytes_of_a_picture": round(sum(map(len, pictures)) / len(pictures)),
        "rounds": arguments.rounds,
        "same_pixels_as_pillow": {name: _is_same(decode, pictures) for name, decode in found.items()},
        "images_per_cpu_second": _rates(found, pictures, arguments.rounds),
        "turns_of_another_thread_meanwhile": {name: _turns_meanwhile(decode) for name, decode in found.items()},
    }
    print(write_result("jpeg_decoders", document).read_text())


def photograph(number: int) -> bytes:
    """Return a picture as it is kept: a part of one of the two photographs, with a little noise."""
    random = np.random.default_rng(number)
    width, height = (int(edge * random.uniform(0.5, 1)) for edge in (640, 427))
    left, top = random.integers(0, 641 - width), random.integers(0, 428 - height)
    pixels = load_images()[number % 2][top : top + height, left : left + width]
    noisy = np.clip(pixels + random.normal(0, 2, pixels.shape), 0, 255).astype(np.uint8)
    scale = 300 / min(width, height)  # so that it is scaled down to what is kept
    picture = Image.fromarray(noisy).resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    return keep(picture, SIZE, None).data


@cache
def load_images() -> Sequence[Pixels]:
    """Return scikit-learn's two photographs."""
    images: Sequence[Pixels] = load_sample_images().images
    return images


def by_pillow(data: bytes) -> Pixels:
    """Decode by Pillow."""
    return np.asarray(Image.open(io.BytesIO(data)))


def by_pillow_at_half_size(data: bytes) -> Pixels:
    """Decode by Pillow at half of the size (draft mode): faster, and blurred in a crop of less than the whole."""
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (SIZE // 2, SIZE // 2))
    return np.asarray(image)


def by_torchvision(data: bytes) -> Pixels:
    """Decode by torchvision."""
    from torchvision.io import decode_jpeg

    pixels: Pixels = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8)).permute(1, 2, 0).numpy()
    return pixels


def by_simplejpeg(data: bytes) -> Pixels:
    """Decode by simplejpeg."""
    from simplejpeg import decode_jpeg

    pixels: Pixels = decode_jpeg(data, strict=False)
    return pixels


def by_opencv(data: bytes) -> Pixels:
    """Decode by OpenCV."""
    import cv2  # type: ignore[import-not-found]  # of no requirements

    pixels: Pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    return pixels


DECODERS: dict[str, Callable[[bytes], Pixels]] = {
    "PIL": by_pillow,
    "PIL at half size": by_pillow_at_half_size,
    "torchvision": by_torchvision,
    "simplejpeg": by_simplejpeg,
    "cv2": by_opencv,
}


def cropped(decode: Callable[[bytes], Pixels], data: bytes) -> None:
    """Decode a picture and make a crop of it as in the training, of a place that depends on its size."""
    pixels = decode(data)
    crop_of(pixels, draw_box(pixels.shape[1], pixels.shape[0], (0, 1, len(data))), SIZE)


def run_all(work: Callable[[bytes], object], pictures: Sequence[bytes]) -> None:
    """Do the work for all pictures."""
    for data in pictures:
        work(data)


def _is_same(decode: Callable[[bytes], Pixels], pictures: Sequence[bytes]) -> bool:
    return all(np.array_equal(decode(data), by_pillow(data)) for data in pictures[:32])


def _rates(
    decoders: dict[str, Callable[[bytes], Pixels]], pictures: Sequence[bytes], rounds: int
) -> dict[str, dict[str, float]]:
    """Return the images that one thread decodes, and decodes and crops, in a second of its CPU."""
    works: dict[tuple[str, str], Callable[[bytes], object]] = {}
    for name, decode in decoders.items():
        works |= {(name, "decoded"): decode, (name, "cropped"): partial(cropped, decode)}
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in works}
    for _ in range(rounds):
        for key, work in works.items():
            started = time.thread_time()
            run_all(work, pictures)
            seconds[key].append(time.thread_time() - started)
    rates = {key: round(len(pictures) / median(times), 1) for key, times in seconds.items()}
    return {name: {kind: rates[name, kind] for kind in ("decoded", "cropped")} for name in decoders}


def _turns_meanwhile(decode: Callable[[bytes], Pixels]) -> int:
    """Return how often another thread had its turn while a large picture was decoded: 0 if Python's lock is kept."""
    file = io.BytesIO()
    Image.fromarray(np.tile(load_images()[0], (12, 8, 1))).save(file, "JPEG")
    turns = 0
    with ThreadPoolExecutor(1) as thread:
        decoding = thread.submit(decode, file.getvalue())
        while not decoding.done():
            time.sleep(0.001)
            turns += 1
    return turns


if __name__ == "__main__":
    main()
