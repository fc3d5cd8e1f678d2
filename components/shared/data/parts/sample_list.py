"""The list of samples that come with a label each: split by split, as raw data has them, and numbered at the end."""

import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.shared.data.parts.listing import ListWriter, read_list
from components.shared.data.samples.description import Content
from components.shared.data.samples.stored import SPLITS
from components.shared.data.sources.schemes import Listed, listed_member


class SampleList:
    """Takes samples in the order of their source, on a disk; their classes are known when all are there."""

    def __init__(self) -> None:
        """Start without samples."""
        self.counts: Counter[str] = Counter()
        self._folder = Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)  # also of a list that is not read
        self._opened, self._writers = ExitStack(), dict[str, ListWriter]()
        self._numbers: NDArray[np.int32] | None = None

    def add(self, split: str, label: int, name: str, content: Content) -> None:
        """Take a sample, of which the content says where it is."""
        assert not isinstance(content, bytes)
        if split not in self._writers:
            self._writers[split] = self._opened.enter_context(ListWriter(self._folder / split))
        self._writers[split].add(listed_member(content, name, label, split))
        self.counts[split] += 1

    def finish(self, numbers: NDArray[np.int32]) -> list[str]:
        """End the list, in which a label x is numbers[x]; it has no files."""
        self._opened.close()
        self._numbers = numbers
        return []

    def pictures(self) -> Iterator[Listed]:
        """Yield the samples, split by split."""
        assert self._numbers is not None
        for split in SPLITS:
            for picture in read_list(self._folder / split) if split in self._writers else ():
                yield picture._replace(label=int(self._numbers[picture.label]))
