"""What is noted of a source on the disk while it passes by: pictures, or samples that come with a label each."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from components.shared.core.files import scratch_of
from components.shared.data.archives.member import Member
from components.shared.data.layout.file_kinds import PICTURE
from components.shared.data.layout.folder_layout import NO_SPLITS
from components.shared.data.parts.listing import ListWriter, read_list
from components.shared.data.samples.description import Content, closed
from components.shared.data.samples.stored import SPLITS, UNLABELLED
from components.shared.data.sources.schemes import Listed, listed_member


class NotedPictures:
    """The pictures of a source as they were passed by, on a disk, for a second reading without the source."""

    def __init__(self) -> None:
        """Start without pictures."""
        self._path = scratch_of(self) / "pictures"

    def noting(self, found: Iterator[Member]) -> Iterator[Member]:
        """Yield members, and note the pictures among them."""
        with closed(found), ListWriter(self._path) as writer:
            for member in found:
                if member.is_folder:
                    yield member
                    continue
                known = replace(member, read_start=cache(member.start))
                yield known
                if known.kind() == PICTURE:
                    writer.add(listed_member(known, known.name, UNLABELLED, NO_SPLITS))

    def read(self) -> Iterator[Listed]:
        """Yield the pictures, once all members were yielded."""
        return read_list(self._path)


class SampleList:
    """Takes samples in the order of their source, on a disk; their classes are known when all are there."""

    def __init__(self) -> None:
        """Start without samples."""
        self.counts: Counter[str] = Counter()
        self._folder = scratch_of(self)
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
