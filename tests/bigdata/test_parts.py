"""A data set that several pods prepare is the one that a single pod prepares, whatever their number and order."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.bigdata.partition import partition
from components.bigdata.prepare import prepare
from components.bigdata.settle import settle
from components.download import download
from components.preprocess import preprocess
from components.shared.data.dataset import SPLITS, Dataset, open_dataset
from components.shared.data.preparation import unit
from components.shared.parameters.bigdata import PartRecipe
from components.shared.parameters.preparation import PreprocessRecipe
from components.shared.storage.client import Store
from tests.data.versions import READING, version_of

SIZE = 8
UNIT = 8  # pictures
SETTINGS: dict[str, Any] = {"image_size": SIZE, "test_fraction": 0.2, "val_fraction": 0.2, "max_bad_images": 1}


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch, s3_variables: None, cache: Path) -> None:
    """Units of a few pictures, and splits that are drawn for some units at a time."""
    for module in ("components.shared.data.preparation.unit", "components.shared.data.parts.listing"):
        monkeypatch.setattr(f"{module}.SPLIT_ROWS", 2 * UNIT)
    for module in ("components.preprocess", "components.bigdata.prepare"):
        monkeypatch.setattr(f"{module}.SPLIT_ROWS", 2 * UNIT)
    monkeypatch.setattr(unit, "UNIT_BYTES", UNIT * 3 * SIZE**2)


@pytest.fixture
def source(tmp_path: Path, store: Store) -> str:
    """Forty pictures below a prefix of the store: gray ones, then colour ones, some of them copies, one broken."""
    random = np.random.default_rng(0)
    for number, name in enumerate(["cat", "dog"]):
        for picture in range(20):
            shape = (SIZE, SIZE, 3) if number else (SIZE, SIZE)
            path = tmp_path / "source" / name / f"{picture:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(path)
    copies = tmp_path / "source" / "dog"
    for picture in range(5):
        (copies / f"copy{picture}.png").write_bytes((copies / "00.png").read_bytes())
    (copies / "broken.png").write_bytes(b"\x89PNG")
    for path in sorted((tmp_path / "source").rglob("*.png")):
        store.put_file(path, f"source/{path.relative_to(tmp_path / 'source').as_posix()}")
    return store.uri("source")


def listed(source: str, folder: Path) -> Path:
    partition(data=source, version=version_of(source), recipe=READING, listing=str(folder))
    return folder


def planned(source: str, store: str, part: int = 0, parts: int = 1, **changes: Any) -> str:
    return PartRecipe.of(**{**SETTINGS, **changes}, store=store, data=source, part=part, parts=parts).text()


def prepared(source: str, listing: Path, store: str, order: Sequence[int], dataset: Path) -> Dataset:
    """Prepare all parts, in an order, and join them."""
    for part in order:
        prepare(listing=str(listing), planned=planned(source, store, part, len(order)))
    settle(listing=str(listing), planned=planned(source, store), dataset=str(dataset))
    return open_dataset(dataset)


def test_any_number_and_order_of_parts_gives_the_same_document(
    source: str, store: Store, uri: str, tmp_path: Path
) -> None:
    listing = listed(source, tmp_path / "listing")
    documents = set()
    for run, order in enumerate([[0], [1, 0], [3, 1, 0, 2]]):
        folder = tmp_path / f"dataset{run}"
        prepared(source, listing, uri, order, folder)
        documents.add((folder / "dataset.json").read_bytes())
        store.remove(*[entry.name for entry in store.list("datasets/units")])
    assert len(documents) == 1


def test_many_pods_prepare_what_one_prepares(source: str, uri: str, tmp_path: Path) -> None:
    listing = listed(source, tmp_path / "listing")
    many = prepared(source, listing, uri, [0, 1, 2], tmp_path / "many")
    raw, one = tmp_path / "raw", tmp_path / "one"
    download(data=source, version=version_of(source), recipe=READING, needs_labels=True, raw=str(raw))
    preprocess(raw=str(raw), recipe=PreprocessRecipe.of(**SETTINGS).text(), prepared_by="", dataset=str(one))
    alone = open_dataset(one)
    assert many.is_remote and not alone.is_remote
    assert many.digest == alone.digest
    assert many.document.splits == alone.document.splits
    for field in ("mean", "std", "duplicates", "bad_images", "samples_sha256", "index_sha256", "left_out"):
        assert getattr(many.document, field) == getattr(alone.document, field), field
    for split in SPLITS:
        for found, expected in zip(many.load(split), alone.load(split), strict=True):
            np.testing.assert_array_equal(found, expected)
    assert sum((many.document.duplicates or pytest.fail("no copies")).copies_dropped.values()) > 0
