"""Random crops of pictures that are kept as JPEG, as training reads them.

A crop is a function of the seed, the epoch and the number of the picture, whoever decodes it and when: equal for any
number of threads and processes, in any order, and after a resume. Its place and size are drawn as by RandomResizedCrop
of torchvision, by raw random bits, which NumPy never changes (NEP 19).
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from components.shared.core.resources import cpu_count
from components.shared.data.shard_images import decoded

AREA = (0.08, 1.0)  # of the picture's, from the least to the most
ASPECT = (3 / 4, 4 / 3)  # of width to height
_TRIES = 10


class Box(NamedTuple):
    """A part of a picture, in pixels."""

    left: int
    top: int
    width: int
    height: int


class RandomCrops:
    """Decodes pictures on all CPUs to random crops of a shape."""

    def __init__(self, image_shape: tuple[int, int, int], seed: int) -> None:
        self._image_shape, self._seed = image_shape, seed
        self._pool = ThreadPoolExecutor(cpu_count())

    def decode(self, pictures: Sequence[bytes], numbers: Sequence[int], epoch: int) -> Tensor:
        """Return a crop of each picture (uint8, N x C x H x W), by the pictures' numbers in their split."""
        images = torch.empty((len(pictures), *self._image_shape), dtype=torch.uint8)

        def write(place: int) -> None:
            images[place] = self._crop(pictures[place], (self._seed, epoch, numbers[place]))

        list(self._pool.map(write, range(len(pictures))))  # raises what a thread raised
        return images

    def _crop(self, data: bytes, entropy: tuple[int, ...]) -> Tensor:
        channels, size, _ = self._image_shape
        pixels = decoded(data)
        crop = crop_of(pixels, draw_box(pixels.shape[1], pixels.shape[0], entropy), size)
        return crop[:channels]  # of one channel, all are equal


def crop_of(pixels: NDArray[np.uint8], box: Box, size: int) -> Tensor:
    """Scale a part of a picture (uint8, H x W x 3) to an image (uint8, 3 x size x size), bilinear with antialiasing."""
    part = torch.from_numpy(pixels[box.top : box.top + box.height, box.left : box.left + box.width])
    planes = part.permute(2, 0, 1)[None]
    return functional.interpolate(planes, (size, size), mode="bilinear", antialias=True)[0]


def draw_box(width: int, height: int, entropy: Sequence[int]) -> Box:
    """Draw a part of a picture; if ten of random area and aspect do not fit, it is the largest one in the middle."""
    draws = _uniform(2 * _TRIES + 2, entropy)
    for area, aspect in draws[2:].reshape(_TRIES, 2).tolist():
        pixels = width * height * (AREA[0] + area * (AREA[1] - AREA[0]))
        ratio = ASPECT[0] * (ASPECT[1] / ASPECT[0]) ** aspect
        wide, tall = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < wide <= width and 0 < tall <= height:
            left, top = draws[:2].tolist()
            return Box(int(left * (width - wide + 1)), int(top * (height - tall + 1)), wide, tall)
    wide, tall = min(width, round(height * ASPECT[1])), min(height, round(width / ASPECT[0]))
    return Box((width - wide) // 2, (height - tall) // 2, wide, tall)


def _uniform(count: int, entropy: Sequence[int]) -> NDArray[np.float64]:
    """Return numbers from 0 to below 1."""
    bits = np.random.SeedSequence(entropy).generate_state(count, np.uint64)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
