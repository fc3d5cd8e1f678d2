"""The random sample of a table's pictures: those with the lowest ranks.

A picture's rank depends on nothing but its name and digest, so the lowest ranks of all parts are the same sample,
however the pictures are dealt to parts.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from components.shared.prediction.reference import MAX_VECTORS

LAST = np.uint64(2**64 - 1)  # of pictures that cannot be used

Ranks = NDArray[np.uint64]
Rows = NDArray[np.bool_]


def ranks_of(sources: Sequence[str], digests: Sequence[str]) -> Ranks:
    """Return a random number for each picture, always the same one for the same name and digest."""
    texts = (f"{source}\0{digest}".encode() for source, digest in zip(sources, digests, strict=True))
    ranks = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in texts)
    return np.frombuffer(ranks, "<u8")


class Sample:
    """The pictures of a part with the 2,000 lowest ranks."""

    def __init__(self) -> None:
        self._ranks: list[Ranks] = []
        self._lowest: Ranks = np.zeros(0, np.uint64)

    def add(self, sources: Sequence[str], digests: Sequence[str], good: Rows) -> Rows:
        """Add pictures; return which of the good ones are in the sample so far."""
        ranks = np.where(good, ranks_of(sources, digests), LAST)
        self._ranks.append(ranks)
        self._lowest = np.sort(np.append(self._lowest, ranks))[:MAX_VECTORS]
        found: Rows = good & (ranks <= self._lowest[-1])
        return found

    def rows(self) -> Rows:
        """Return which of all rows are in the sample; there are bad ones among them if the good ones are fewer."""
        ranks = np.concatenate(self._ranks)
        found = np.zeros(len(ranks), bool)
        found[np.argsort(ranks, kind="stable")[:MAX_VECTORS]] = True
        return found
