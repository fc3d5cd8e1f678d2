"""Units that were prepared one by one become one dataset: gray ones are widened, dropped images are not read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.shared.core.errors import CorruptDataError
from components.shared.core.files import sha256_file
from components.shared.core.npy import write_npy
from components.shared.data.dataset import Dataset, DatasetDocument, Images, open_dataset, write_document
from components.shared.data.preparation.rows import ROW, Rows, describe
from components.shared.data.preparation.settle import document_of, settle
from components.shared.data.preparation.unit import MAX_UNITS, unit_size, write_unit

TRAIN, VAL, TEST = range(3)
RANDOM = np.random.default_rng(0)


def noise(count: int, channels: int = 1) -> Images:
    return RANDOM.integers(0, 256, (count, channels, 4, 4), dtype=np.uint8)


def unit_rows(images: Images, splits: Sequence[int], dropped: Sequence[int] = ()) -> Rows:
    rows = np.zeros(len(images), ROW)
    describe(rows, images)
    rows["label"], rows["split"] = np.arange(len(rows)) % 2, splits
    rows["dropped"][list(dropped)] = 1
    return rows


def prepare(folder: Path, *units: tuple[Images, Rows]) -> Dataset:
    folder.mkdir()
    written = [write_unit(folder, number, rows, [images]) for number, (images, rows) in enumerate(units)]
    content = settle(folder, written, [rows for _, rows in units], (4, 4), 2)
    write_document(folder, document_of(folder, content, ["a", "b"], name="noise", seconds={}))
    return open_dataset(folder)


@pytest.mark.parametrize(
    ("size", "pictures", "raw", "jpeg"),
    [
        (8, 10**6, 65_536, 65_536),
        (32, 600_000, 32_768, 65_536),
        (32, 10**6, 4_096, 65_536),
        (96, 77_000, 4_096, 16_384),
        (96, 78_000, 512, 16_384),
        (224, 14_000, 512, 2_048),
        (224, 10**6, 64, 256),
        (224, 2**21, 64, 256),
        (224, 2**21 + 1, 128, 256),
        (224, 10**8, 4_096, 4_096),
        (224, 10**9, 32_768, 32_768),
        (4096, 40, 2, 8),
        (4096, 2**15, 1, 1),
        (4096, 10**6, 32, 32),
    ],
)
def test_units_are_powers_of_two_of_bounded_size(size: int, pictures: int, raw: int, jpeg: int) -> None:
    assert unit_size(size, pictures, "raw") == raw
    assert unit_size(size, pictures, "jpeg") == jpeg


def test_the_document_of_most_units_can_be_read(tmp_path: Path) -> None:
    images = noise(9)
    rows = unit_rows(images, [TRAIN, VAL, TEST] * 3, dropped=[0, 1, 2])
    one, two = (prepare(tmp_path / str(count), *[(images, rows.copy()) for _ in range(count)]) for count in (1, 2))
    sizes = [(data.folder / "dataset.json").stat().st_size for data in (one, two)]
    files = len(list(two.files())) - len(list(one.files()))
    assert files == 9
    assert (sizes[1] - sizes[0] + 10 * files) * MAX_UNITS < DatasetDocument.MAX_BYTES  # with sizes of ten digits more


def test_the_index_has_few_row_groups_of_many_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.shared.data.preparation.settle.INDEX_ROWS", 6)
    units = [(images := noise(3), unit_rows(images, [TRAIN, VAL, TEST])) for _ in range(5)]
    with pq.ParquetFile(prepare(tmp_path / "noise", *units).folder / "index.parquet") as index:
        assert [index.metadata.row_group(group).num_rows for group in range(index.num_row_groups)] == [6, 6, 3]
        assert index.read()["unit"].to_pylist() == [unit for unit in range(5) for _ in range(3)]


def test_a_gray_unit_of_a_colour_set_is_widened(tmp_path: Path) -> None:
    gray, colour = noise(4), noise(4, channels=3)
    splits = [TRAIN, TRAIN, VAL, TEST]
    data = prepare(tmp_path / "a", (gray, unit_rows(gray, splits)), (colour, unit_rows(colour, splits)))
    assert data.image_shape == (3, 4, 4)
    images, labels = data.load("train")
    np.testing.assert_array_equal(images, np.concatenate([gray[:2].repeat(3, axis=1), colour[:2]]))
    assert labels.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(data.take("val", [1, 0]), [colour[2], gray[2].repeat(3, axis=0)])
    np.testing.assert_allclose(data.document.mean, images.mean(axis=(0, 2, 3)) / 255)
    np.testing.assert_allclose(data.document.std, (images / 255).std(axis=(0, 2, 3)))


def test_dropped_images_are_not_read_nor_counted(tmp_path: Path) -> None:
    images = noise(9)
    rows = unit_rows(images, [TRAIN] * 6 + [VAL, VAL, TEST], dropped=[0, 3, 6])
    data = prepare(tmp_path / "a", (images, rows))
    assert data.counts == {"train": 4, "val": 1, "test": 1}
    np.testing.assert_array_equal(data.load("train")[0], images[[1, 2, 4, 5]])
    np.testing.assert_array_equal(data.take("train", [3, 0]), images[[5, 1]])
    assert [len(found) for found, _ in data.batches("train", 3)] == [3, 1]
    np.testing.assert_allclose(data.document.mean, images[[1, 2, 4, 5]].mean() / 255)
    assert data.labels("val").tolist() == [1]


def test_a_shard_that_is_dropped_whole_has_no_files(tmp_path: Path) -> None:
    images = noise(3)
    data = prepare(tmp_path / "a", (images, unit_rows(images, [TRAIN, VAL, TEST], dropped=[1])))
    assert data.counts == {"train": 1, "val": 0, "test": 1}
    assert not list((tmp_path / "a").glob("val-*"))


def test_the_digest_does_not_depend_on_units(tmp_path: Path) -> None:
    images, splits = noise(8), [TRAIN, VAL, TEST, TRAIN] * 2
    rows = unit_rows(images, splits)
    whole = prepare(tmp_path / "whole", (images, rows.copy()))
    cut = prepare(tmp_path / "cut", (images[:3], rows[:3].copy()), (images[3:], rows[3:].copy()))
    assert whole.digest == cut.digest
    other = rows.copy()
    other["label"][7] ^= 1
    changed = prepare(tmp_path / "changed", (images, other))
    splits_changed = {s for s, split in changed.document.splits.items() if split != whole.document.splits[s]}
    assert splits_changed == {"train"}


@pytest.mark.parametrize("places", [[0, 99], [1, 1], [-1, 0]])
def test_a_forged_list_of_dropped_images_is_reported(tmp_path: Path, places: list[int]) -> None:
    images = noise(5)
    data = prepare(tmp_path / "a", (images, unit_rows(images, [TRAIN] * 3 + [VAL, TEST], dropped=[0, 1])))
    path = tmp_path / "a" / "train-00000.dropped.npy"
    write_npy(path, np.array(places))
    with pytest.raises(CorruptDataError, match=r"dropped\.npy is missing or differs"):
        data.load("train")
    document = data.document
    (shard,) = document.splits["train"].shards
    assert shard.dropped
    forged = shard.model_copy(update={"dropped": shard.dropped.model_copy(update={"sha256": sha256_file(path)})})
    document.splits["train"].shards[0] = forged
    with pytest.raises(CorruptDataError, match="leaves out"):
        data.load("train")
