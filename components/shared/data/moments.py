"""Mean and standard deviation of each channel, of pixels scaled to 0..1: exact, in any order of the images."""

import math

import numpy as np
from numpy.typing import NDArray


class Moments:
    """Sums over the images so far."""

    def __init__(self, channels: int) -> None:
        """Start without images."""
        self.count, self.sums, self.squares = 0, [0] * channels, [0] * channels

    def add(self, images: NDArray[np.uint8]) -> None:
        """Add images (N x C x H x W)."""
        self.count += images[:, 0].size
        for channel in range(len(self.sums)):
            plane = images[:, channel]
            self.sums[channel] += int(plane.sum(dtype=np.int64))
            self.squares[channel] += int(np.square(plane, dtype=np.uint16).sum(dtype=np.int64))

    def mean_and_std(self) -> tuple[list[float], list[float]]:
        """Return both for each channel."""
        n = max(1, self.count)
        mean = [total / (255 * n) for total in self.sums]
        variance = [(n * q - s * s) / (255 * n) ** 2 for s, q in zip(self.sums, self.squares, strict=True)]
        return mean, [math.sqrt(v) or 1.0 for v in variance]  # 1 leaves a constant channel unscaled
