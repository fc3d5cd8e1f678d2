"""Copies across splits go to the last of train, val and test; copies within a split stay; all are counted."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.shared.core.errors import UserError
from components.shared.data.dataset import SPLITS
from components.shared.data.preparation.join import joined
from components.shared.data.preparation.rows import ROW, UNIT_COLUMNS, write_rows
from components.shared.data.preparation.splits import TEST, TRAIN, VAL
from tests.disk_use import small_disk

Image = tuple[int, int, int]  # content, label, split
BAD = (-1, 0, 0)  # a picture that cannot be used, which has no row


class Found(NamedTuple):
    dropped: list[int]
    repeated: int
    conflicting: int
    within: list[int]


def join(folder: Path, images: Sequence[Image], unit: int = 4) -> Found:
    """Return the numbers of the dropped images, and the figures; a unit has some of the images."""
    for number, start in enumerate(range(0, len(images), unit)):
        part = [image for image in images[start : start + unit] if image != BAD]
        rows = np.zeros(len(part), ROW)
        rows["digest"] = [(content * 7919).to_bytes(16, "big") for content, _, _ in part]
        rows["label"], rows["split"] = [label for _, label, _ in part], [split for _, _, split in part]
        rows["unit"], rows["row"] = number, range(len(part))
        write_rows(folder / f"{number:05}.parquet", [rows], UNIT_COLUMNS)
    with joined(folder) as found:
        rows = np.concatenate(list(found.rows()))
        dropped = [unit * u + r for u, r, is_dropped in rows[["unit", "row", "dropped"]].tolist() if is_dropped]
        return Found(sorted(dropped), *found.repeated(), [found.within_split()[split] for split in SPLITS])


def test_copies_stay_in_the_last_split(tmp_path: Path) -> None:
    images = [(1, 0, TRAIN), (1, 0, VAL), (1, 0, TEST), (2, 0, TRAIN), (2, 0, VAL), (3, 0, TRAIN)]
    assert join(tmp_path, images) == ([0, 1, 3], 2, 0, [0, 0, 0])


def test_copies_within_a_split_stay_and_are_counted(tmp_path: Path) -> None:
    images = [(1, 0, TRAIN), (1, 0, TRAIN), (1, 0, TRAIN), (2, 1, TEST), (2, 1, TEST)]
    assert join(tmp_path, images) == ([], 2, 0, [2, 0, 1])


def test_copies_with_different_labels_are_counted(tmp_path: Path) -> None:
    found = join(tmp_path, [(1, 0, TRAIN), (1, 2, TEST), (2, 1, TRAIN), (2, 1, TRAIN), (3, 0, TRAIN)])
    assert (found.repeated, found.conflicting) == (2, 1)


def test_a_unit_of_bad_pictures_has_no_rows(tmp_path: Path) -> None:
    images = [*[BAD] * 4, (1, 0, TRAIN), (2, 0, TRAIN), (1, 0, TEST), (2, 0, VAL), *[BAD] * 4, (1, 0, TRAIN)]
    assert join(tmp_path, images).dropped == [4, 5, 12]


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "run [1] *?"
    folder.mkdir()
    assert join(folder, [(1, 0, TRAIN), (1, 0, TEST)]).dropped == [0]


@pytest.mark.slow
def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.shared.data.preparation.join.MEMORY_MIB", 64)
    with small_disk(tmp_path / "disk", 40 * 2**20) as disk:
        for unit in range(16):
            rows = np.zeros(2**16, ROW)
            rows["digest"] = np.frombuffer(np.random.default_rng(unit).bytes(16 * len(rows)), "V16")
            rows["unit"], rows["row"] = unit, range(len(rows))
            write_rows(disk / f"{unit:05}.parquet", [rows], UNIT_COLUMNS)
        with pytest.raises(UserError) as caught, joined(disk) as found:
            list(found.rows())
    assert str(caught.value) == (
        f"finding the copies among the images takes more space than is free in {disk}; free some space there"
    )


IMAGES = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=60)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(images=IMAGES, unit=st.integers(1, 30))
def test_units_of_any_size_join_alike(tmp_path_factory: pytest.TempPathFactory, images: list[Image], unit: int) -> None:
    found = join(tmp_path_factory.mktemp("units"), images, unit)
    last = {content: max(s for c, _, s in images if c == content) for content, _, _ in images}
    assert found.dropped == [n for n, (content, _, split) in enumerate(images) if split < last[content]]
    stays = [(content, split) for n, (content, _, split) in enumerate(images) if n not in found.dropped]
    expected = [sum(s == split for _, s in stays) - sum(s == split for s in last.values()) for split in range(3)]
    assert found.within == expected
