"""A source that step resolve finds too large is listed by download and prepared unit by unit by preprocess."""

from pathlib import Path
from typing import Any

import pytest

from components.download import download
from components.preprocess import preprocess
from components.resolve import resolve
from components.shared.core.errors import TransientError, UserError
from components.shared.data.dataset import Dataset, open_dataset
from components.shared.data.parts.listing import is_listing
from components.shared.parameters.preparation import DownloadRecipe, PreprocessRecipe
from components.shared.storage.client import Store
from tests.bigdata.parts import SETTINGS, listed, prepared, prepared_alone, without_seconds
from tests.data.versions import version_of
from tests.sample_files import picture, tar_bytes

NAMES = [f"{kind}/{number}.png" for kind in "ab" for number in range(3)]
LISTED = DownloadRecipe(listed=True).text()


def list_pictures(source: str, folder: Path) -> Path:
    download(data=source, version=version_of(source), recipe=LISTED, needs_labels=True, raw=str(folder))
    return folder


def prepare_listed(listing: Path, store: str, dataset: Path, **changes: Any) -> Dataset:
    recipe = PreprocessRecipe.of(**{**SETTINGS, **changes}, store=store).text()
    preprocess(raw=str(listing), recipe=recipe, prepared_by="this-run", dataset=str(dataset))
    return open_dataset(dataset)


def folder_of(folder: Path, names: list[str]) -> str:
    """Write pictures of these names; return the folder's address."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(0))
    return folder.as_uri()


@pytest.mark.slow
def test_listed_pictures_give_the_dataset_of_all_ways(
    source: str, uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = list_pictures(source, tmp_path / "listing")
    assert sorted(path.name for path in listing.iterdir()) == ["listing.json", "listing.parquet"]
    found = prepare_listed(listing, uri, tmp_path / "listed")
    assert "units: 6; already in the store: 0" in capsys.readouterr().out
    alone = prepared_alone(source, tmp_path)
    assert (found.digest, found.document.splits) == (alone.digest, alone.document.splits)
    parts = prepared(listed(source, uri, tmp_path / "parts"), [1, 0], tmp_path / "many")
    assert "units of up to 8 pictures: 6; already in the store: 6" in capsys.readouterr().out
    assert without_seconds(parts) == without_seconds(found)
    assert [*found.document.seconds] == ["download", "preprocess"] and min(found.document.seconds.values()) > 0


@pytest.mark.slow
def test_what_was_prepared_before_a_stop_is_not_prepared_again(
    source: str, store: Store, uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = list_pictures(source, tmp_path / "listing")
    last = store.get_bytes("source/dog/19.png")[0]
    store.put_bytes(b"another", "source/dog/19.png")
    with pytest.raises(TransientError, match=r"source/dog/19\.png changed while it was read; run it again"):
        prepare_listed(listing, uri, tmp_path / "dataset", value_range="0,255")
    assert not (tmp_path / "dataset").exists()
    store.put_bytes(last, "source/dog/19.png")
    prepare_listed(listing, uri, tmp_path / "dataset", value_range="0,255")
    assert "units: 6; already in the store: 4" in capsys.readouterr().out


@pytest.mark.parametrize("data", ["archive", "prefix"])
def test_a_source_that_cannot_be_listed_is_copied(
    store: Store, tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "pets.tar.gz"
    archive.write_bytes(tar_bytes({"cat/1.png": picture(0), "dog/2.png": picture(1)}))
    store.put_file(archive, "source/pets.tar.gz")
    raw = list_pictures(store.uri("source") if data == "prefix" else str(archive), tmp_path / "raw")
    assert (raw / "raw.json").exists() and not is_listing(raw)
    assert "cannot be read picture by picture: all of it is copied" in capsys.readouterr().out


def test_too_many_unreadable_pictures_are_refused(uri: str, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "source", [*NAMES, "b/2.heic"])
    listing = list_pictures(source, tmp_path / "listing")
    with pytest.raises(UserError, match=r"1 of 7 pictures left out: 1 \.heic, more than max_left_out=0\.1"):
        prepare_listed(listing, uri, tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


@pytest.mark.parametrize(("few", "settings"), [(2, {}), (3, {"test_fraction": 0.6})])
def test_a_class_of_too_few_pictures_is_not_prepared(
    store: Store, uri: str, tmp_path: Path, few: int, settings: dict[str, float]
) -> None:
    source = folder_of(tmp_path / "source", [*NAMES, *(f"eel/{number}.png" for number in range(few))])
    listing = list_pictures(source, tmp_path / "listing")
    message = rf"class '(a|eel)' has 0 images in the val split, of {few} in all .*; add pictures of"
    with pytest.raises(UserError, match=message):
        prepare_listed(listing, uri, tmp_path / "dataset", **settings)
    assert not list(store.list("units")) and not (tmp_path / "dataset").exists()


@pytest.mark.parametrize(
    ("graph", "changes", "expected"),
    [
        ("training", {"handover_mib": 0}, True),
        ("training", {}, False),
        ("training", {"handover_mib": 0, "store": ""}, False),
        ("distributed", {"nodes": 2}, False),
        ("distributed", {"nodes": 2, "handover_mib": 0}, True),
        ("sweep", {"handover_mib": 0, "settings": [{"epochs": 1}]}, True),
        ("bigdata", {"handover_mib": 0}, False),
    ],
)
def test_resolve_decides_by_the_size_of_the_source(
    source: str, uri: str, graph: str, changes: dict[str, Any], expected: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"data": source, "store": uri, **changes}
    options = {name: given.pop(name) for name in ("handover_mib",) if name in given}
    reading = resolve(graph=graph, options=options, **given).reading
    assert DownloadRecipe.read(reading).listed is expected
    assert ("listed" in reading) is expected, "the recipe of a small source stays what it was"
    warned = "more than handover_mib=0, and without store= the steps download and preprocess each need a disk for all"
    assert (warned in capsys.readouterr().out) is (given["store"] == "")
