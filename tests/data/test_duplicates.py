"""Copies across splits go to the last of train, val and test; copies within a split stay; all are counted."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.shared.data import duplicates
from components.shared.data.decode_buffer import ROW
from components.shared.data.duplicates import Duplicates
from components.shared.data.splits import TEST, TRAIN, VAL

Image = tuple[int, int, int]  # content, label, split


def resolve(folder: Path, images: Sequence[Image]) -> tuple[list[int], Duplicates]:
    """Return the numbers of the dropped images, and the finder."""
    rows = np.zeros(len(images), ROW)
    rows["digest"][:, 0] = [content * 7919 for content, _, _ in images]
    rows["label"] = [label for _, label, _ in images]
    found = Duplicates(folder, len(images), 3)
    for start in range(0, len(images), 4):
        found.add(rows[start : start + 4], np.array([split for _, _, split in images[start : start + 4]], np.uint8))
    return sorted(np.concatenate([[], *found.resolve()]).astype(int).tolist()), found


def test_copies_stay_in_the_last_split(tmp_path: Path) -> None:
    images = [(1, 0, TRAIN), (1, 0, VAL), (1, 0, TEST), (2, 0, TRAIN), (2, 0, VAL), (3, 0, TRAIN)]
    dropped, found = resolve(tmp_path, images)
    assert dropped == [0, 1, 3]
    assert found.dropped.tolist() == [2, 1, 0]
    assert found.counts[:, 0].tolist() == [1, 1, 1]


def test_copies_within_a_split_stay_and_are_counted(tmp_path: Path) -> None:
    dropped, found = resolve(tmp_path, [(1, 0, TRAIN), (1, 0, TRAIN), (1, 0, TRAIN), (2, 1, TEST), (2, 1, TEST)])
    assert dropped == []
    assert found.copies().copies_kept_within_split == {"train": 2, "val": 0, "test": 1}


def test_copies_with_different_labels_are_counted(tmp_path: Path) -> None:
    _, found = resolve(tmp_path, [(1, 0, TRAIN), (1, 2, TEST), (2, 1, TRAIN), (2, 1, TRAIN), (3, 0, TRAIN)])
    assert found.copies().repeated_images == 2
    assert found.copies().of_these_with_conflicting_labels == 1


def test_whole_digests_are_compared(tmp_path: Path) -> None:
    rows = np.zeros(4, ROW)
    rows["digest"] = [(5, 1), (5, 2), (8, 3), (9, 3)]
    found = Duplicates(tmp_path, 4, 1)
    found.add(rows, np.array([TRAIN, VAL, TRAIN, TEST], np.uint8))
    assert [numbers.tolist() for numbers in found.resolve()] == [[]]


IMAGES = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2), st.integers(0, 2)), max_size=60)


@settings(max_examples=60, deadline=None)
@given(images=IMAGES, bucket_rows=st.integers(1, 100))
def test_any_number_of_buckets_finds_all_copies(
    tmp_path_factory: pytest.TempPathFactory, images: list[Image], bucket_rows: int
) -> None:
    before, duplicates.BUCKET_ROWS = duplicates.BUCKET_ROWS, bucket_rows
    try:
        dropped, found = resolve(tmp_path_factory.mktemp("buckets"), images)
    finally:
        duplicates.BUCKET_ROWS = before
    last = {content: max(s for c, _, s in images if c == content) for content, _, _ in images}
    assert dropped == [n for n, (content, _, split) in enumerate(images) if split < last[content]]
    stay = [image for n, image in enumerate(images) if n not in dropped]
    assert found.counts.tolist() == [[stay_count(stay, s, label) for label in range(3)] for s in range(3)]


def stay_count(images: Sequence[Image], split: int, label: int) -> int:
    return sum(1 for _, own_label, own_split in images if (own_label, own_split) == (label, split))
