"""A data set that several pods prepare is the one that a single pod prepares, whatever their number and order."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.bigdata.partition import partition
from components.bigdata.settle import settle
from components.shared.core.document import ValueRange
from components.shared.core.errors import TransientError, UserError
from components.shared.data.dataset import SPLITS, Dataset, DatasetDocument, open_dataset
from components.shared.data.decode import Decoded, Decoder
from components.shared.data.image_sizes import image_sizes
from components.shared.data.parts.listing import ListingDocument, open_listing
from components.shared.data.parts.stored_units import PartDocument, UnitDocument
from components.shared.data.sources.packing import describe_pictures
from components.shared.parameters.preparation import PreprocessRecipe
from components.shared.storage.client import Store
from tests.bigdata.parts import SIZE, listed, prepare_part, prepared, prepared_alone, without_seconds
from tests.data.versions import READING, version_of
from tests.servers.s3_server import Proxy


@pytest.mark.slow
def test_any_number_and_order_of_parts_gives_the_same_document(
    source: str, store: Store, uri: str, tmp_path: Path
) -> None:
    listing = listed(source, uri, tmp_path / "listing")
    documents = list[DatasetDocument]()
    for run, order in enumerate([[0], [1, 0], [3, 1, 0, 2]]):
        folder = tmp_path / f"dataset{run}"
        documents.append(without_seconds(prepared(listing, order, folder)))
        store.remove(*[entry.name for entry in store.list("units")])
    assert documents[0] == documents[1] == documents[2]


@pytest.mark.slow
def test_the_dataset_tells_what_each_step_took(source: str, uri: str, tmp_path: Path) -> None:
    listing = listed(source, uri, tmp_path / "listing")
    parts = [prepare_part(listing, part, 2) for part in range(2)]
    datasets = list[Dataset]()
    for took in (3600.0, 7200.0):
        list_document = ListingDocument.read(listing / "listing.json")
        assert list_document.seconds.keys() == {"partition"}
        list_document.model_copy(update={"seconds": {"partition": took}}).write(listing / "listing.json")
        for path, seconds in zip(parts, (took, 60.0), strict=True):
            part = PartDocument.read(Path(path) / "part.json")
            assert part.seconds > 0
            part.model_copy(update={"seconds": seconds}).write(Path(path) / "part.json")
        settle(listing=str(listing), parts=parts, dataset=str(tmp_path / f"{took}"))
        datasets.append(open_dataset(tmp_path / f"{took}"))
        found = datasets[-1].document.seconds
        assert [*found] == ["partition", "prepare", "settle"] and found["settle"] > 0
        assert found["partition"] == found["prepare"] == took, "the longest pod counts"
        assert open_listing(listing).document.digest == list_document.digest
    assert datasets[0].digest == datasets[1].digest and without_seconds(datasets[0]) == without_seconds(datasets[1])


@pytest.mark.parametrize("keep", ["raw", "jpeg"])
def test_many_pods_prepare_what_one_prepares(source: str, uri: str, tmp_path: Path, keep: str) -> None:
    listing = listed(source, uri, tmp_path / "listing", keep=keep)
    many = prepared(listing, [0, 1, 2], tmp_path / "many")
    alone = prepared_alone(source, tmp_path, keep=keep)
    assert many.is_remote and not alone.is_remote
    assert many.digest == alone.digest
    assert many.document.splits == alone.document.splits
    for field in ("mean", "std", "duplicates", "bad_images", "samples_sha256", "index_sha256", "left_out"):
        assert getattr(many.document, field) == getattr(alone.document, field), field
    for split in SPLITS:
        for found, expected in zip(many.load(split), alone.load(split), strict=True):
            np.testing.assert_array_equal(found, expected)
    for data in (many, alone):
        sizes = image_sizes(data, "test")
        assert sizes is not None and sizes.tolist() == [[SIZE, SIZE]] * data.counts["test"]
    assert sum((many.document.duplicates or pytest.fail("no copies")).copies_dropped.values()) > 0


def test_sizes_are_found_below_any_prefix(source: str, uri: str, tmp_path: Path) -> None:
    data = prepared(listed(source, f"{uri}/datasets/team", tmp_path / "listing"), [0], tmp_path / "dataset")
    assert image_sizes(data, "test") is not None


@pytest.mark.slow
def test_few_bytes_of_pictures_are_in_memory_at_a_time(
    source: str, store: Store, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = prepared(listed(source, uri, tmp_path / "listing"), [0], tmp_path / "expected")
    store.remove(*[entry.name for entry in store.list("units")])
    monkeypatch.setattr("components.shared.data.raw.MAX_CHUNK_BYTES", 400)
    decode_all, sizes = Decoder.each, list[list[int]]()

    def each(decoder: Decoder, pictures: Sequence[bytes]) -> list[Decoded]:
        sizes.append([*map(len, pictures)])
        return decode_all(decoder, pictures)

    monkeypatch.setattr(Decoder, "each", each)
    listing = listed(source, uri, tmp_path / "again")
    measured = len(sizes)
    assert without_seconds(prepared(listing, [0], tmp_path / "dataset")) == without_seconds(expected)
    assert 0 < measured < len(sizes) and all(sum(some[:-1]) < 400 for some in sizes)
    assert sum(len(some) for some in sizes[:measured]) == 46 == sum(len(some) for some in sizes[measured:])


@pytest.mark.slow
def test_units_that_are_in_the_store_are_not_prepared_again(
    source: str, store: Store, uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = listed(source, uri, tmp_path / "listing")
    whole = prepared(listing, [0], tmp_path / "whole")
    assert "units of up to 8 pictures: 6; already in the store: 0" in capsys.readouterr().out
    documents = sorted(entry.name for entry in store.list("units") if entry.name.endswith(".json"))
    (shard,) = [file for file in UnitDocument.parse(store.get_bytes(documents[1])[0], "").shards["train"].files][:1]
    store.remove(documents[0], f"datasets/shards/{shard.sha256}.npy")
    again = prepared(listing, [0, 1], tmp_path / "again")
    assert "units of up to 8 pictures: 6; already in the store: 4" in capsys.readouterr().out
    assert without_seconds(again) == without_seconds(whole)


def test_a_missing_unit_is_reported(source: str, uri: str, tmp_path: Path) -> None:
    listing = listed(source, uri, tmp_path / "listing")
    part = prepare_part(listing, 1, 2)
    with pytest.raises(UserError, match=r"unit 0 of 6 is not in s3://.*; run it again"):
        settle(listing=str(listing), parts=[part], dataset=str(tmp_path / "dataset"))
    assert not (tmp_path / "dataset").exists()


@pytest.mark.parametrize("content", ["other", "longer", "none"])
def test_a_picture_that_changed_is_reported(source: str, store: Store, uri: str, tmp_path: Path, content: str) -> None:
    listing = listed(source, uri, tmp_path / "listing")
    if content == "none":
        store.remove("source/cat/00.png")
    else:
        other = store.get_bytes("source/cat/01.png")[0]
        store.put_bytes(other * (1 + (content == "longer")), "source/cat/00.png")
    with pytest.raises(TransientError, match=r"source/cat/00\.png changed while it was read"):
        prepare_part(listing, 0, 1)


@pytest.mark.parametrize("now", ["written again", "removed", "a folder"])
def test_a_file_that_changed_is_reported(tmp_path: Path, uri: str, now: str) -> None:
    for name in [f"{kind}/{number}.png" for kind in "ab" for number in range(3)]:
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((SIZE, SIZE), len(name), np.uint8)).save(tmp_path / "source" / name)
    listing = listed((tmp_path / "source").as_uri(), uri, tmp_path / "listing")
    changed = tmp_path / "source" / "b" / "0.png"
    content = changed.read_bytes()
    changed.unlink()
    if now == "a folder":
        changed.mkdir()
    elif now == "written again":
        changed.write_bytes(content)
    with pytest.raises(UserError, match=r"b/0\.png has changed since it was listed; run it again"):
        prepare_part(listing, 0, 1)


def test_a_source_that_changes_while_listed_is_reported(source: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has changed while it was listed"):
        partition(
            data=source,
            version="listing:0",
            reading=READING,
            recipe=PreprocessRecipe.of().text(),
            listing=str(tmp_path / "listing"),
        )
    assert not (tmp_path / "listing").exists()


@pytest.mark.parametrize("name", ["new/0.png", "0.png", "a/new/0.png", "b"])
def test_a_folder_that_changes_while_listed_is_reported(
    name: str, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        path = tmp_path / "source" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((SIZE, SIZE), number, np.uint8)).save(path)

    def then_changed(*given: Any) -> Any:
        found = describe_pictures(*given)
        changed = tmp_path / "source" / name
        if changed.is_dir():
            shutil.rmtree(changed)
        else:
            changed.parent.mkdir(exist_ok=True)
            changed.write_bytes(path.read_bytes())
        return found

    monkeypatch.setattr("components.shared.data.parts.source_listing.describe_pictures", then_changed)
    with pytest.raises(UserError, match=r"data=.*/source has changed while it was listed; run it again"):
        listed(str(tmp_path / "source"), uri, tmp_path / "listing")
    assert not (tmp_path / "listing").exists()


def test_the_store_is_listed_once(source: str, s3_proxy: Proxy, tmp_path: Path) -> None:
    version = version_of(source)
    s3_proxy.asked.clear()
    recipe = PreprocessRecipe.of().text()
    partition(data=source, version=version, reading=READING, recipe=recipe, listing=str(tmp_path / "listing"))
    assert len([path for _, path, _ in s3_proxy.asked if "list-type=2" in path]) == 1


def test_settling_asks_for_each_shard_once(
    source: str, store: Store, uri: str, s3_proxy: Proxy, tmp_path: Path
) -> None:
    listing = listed(source, uri, tmp_path / "listing")
    part = prepare_part(listing, 0, 1)
    s3_proxy.asked.clear()
    settle(listing=str(listing), parts=[part], dataset=str(tmp_path / "dataset"))
    asked = [path for method, path, _ in s3_proxy.asked if method == "HEAD" and "/datasets/shards/" in path]
    documents = [store.get_bytes(entry.name)[0] for entry in store.list("units") if entry.name.endswith(".json")]
    units = [UnitDocument.parse(content, "") for content in documents]
    assert len(asked) == sum(len(shard.files) for unit in units for shard in unit.shards.values()) > 0


def test_too_many_unreadable_pictures_are_refused(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.heic"):
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_bytes(b"x")
    with pytest.raises(UserError, match=r"more than max_left_out=0\.1; convert them"):
        listed((tmp_path / "source").as_uri(), "", tmp_path / "listing")


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 3])
def test_bad_pictures_are_counted_over_all_parts(
    source: str, store: Store, uri: str, tmp_path: Path, parts: int
) -> None:
    for number in range(2):
        store.put_bytes(b"no picture", f"source/cat/{number}9.png")
    listing = listed(source, uri, tmp_path / "listing")
    with pytest.raises(UserError, match=r"picture (cat/19|dog/broken)\.png cannot be used: .*max_bad_images"):
        prepared(listing, range(parts), tmp_path / "dataset")
    listing = listed(source, uri, tmp_path / "allowed", max_bad_images=3)
    data = prepared(listing, range(parts), tmp_path / "dataset")
    assert [bad.name for bad in data.document.bad_images or []] == ["cat/09.png", "cat/19.png", "dog/broken.png"]


@pytest.mark.slow
def test_pictures_of_16_bits_are_scaled_as_by_one_pod(tmp_path: Path, uri: str) -> None:
    random = np.random.default_rng(0)
    for name, high in (("a", 3000), ("b", 4096)):
        (tmp_path / "source" / name).mkdir(parents=True)
        for number in range(12):
            pixels = random.integers(0, high, (SIZE, SIZE), dtype=np.uint16)
            Image.fromarray(pixels).save(tmp_path / "source" / name / f"{number}.png")
    source = (tmp_path / "source").as_uri()
    many = prepared(listed(source, uri, tmp_path / "listing"), [0, 1], tmp_path / "many")
    alone = prepared_alone(source, tmp_path)
    assert many.document.value_range == alone.document.value_range != ValueRange(low=0, high=4095)
    assert many.digest == alone.digest
    given = listed(source, uri, tmp_path / "given", value_range="0,4095")
    assert prepared(given, [0], tmp_path / "scaled").document.value_range == ValueRange(low=0, high=4095)


@pytest.mark.slow
def test_of_many_pictures_the_same_are_measured_as_by_one_pod(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_measured(monkeypatch, 10)
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "source" / name).mkdir(parents=True)
        for number in range(12):
            dtype, high = (np.uint8, 256) if number % 4 == 1 else (np.uint16, 1000 + 99 * number)
            pixels = random.integers(0, high, (SIZE, SIZE), dtype=dtype)
            Image.fromarray(pixels).save(tmp_path / "source" / name / f"{number:02}.png")
    (tmp_path / "source" / "a" / "03.png").write_bytes(b"")
    source = (tmp_path / "source").as_uri()
    many = prepared(listed(source, uri, tmp_path / "listing"), [0], tmp_path / "many")
    alone = prepared_alone(source, tmp_path)
    assert many.document.value_range == alone.document.value_range
    assert many.digest == alone.digest


def test_a_wide_picture_that_was_not_measured_is_reported(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_measured(monkeypatch, 2)
    for name in ("a", "b"):
        (tmp_path / "source" / name).mkdir(parents=True)
        for number in range(12):
            dtype = np.uint16 if (name, number) == ("b", 2) else np.uint8
            pixels = np.full((SIZE, SIZE), number, dtype)
            Image.fromarray(pixels).save(tmp_path / "source" / name / f"{number:02}.png")
    source = (tmp_path / "source").as_uri()
    listing = listed(source, uri, tmp_path / "listing")
    message = r"more than 8 bits, and none of those that were measured had; give value_range=LOW,HIGH"
    with pytest.raises(UserError, match=message):
        prepare_part(listing, 0, 1)
    with pytest.raises(UserError, match=message):
        prepared_alone(source, tmp_path)


def few_measured(monkeypatch: pytest.MonkeyPatch, pictures: int) -> None:
    monkeypatch.setattr("components.shared.data.pictures.value_range.MAX_PICTURES", pictures)


@pytest.mark.parametrize("kind", ["digits", "idx", "one"])
def test_sources_of_other_kinds_are_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "source").mkdir()
    name = "train-images-idx3-ubyte" if kind == "idx" else "a.png"
    (tmp_path / "source" / name).write_bytes(b"x")
    data = {"digits": "digits", "idx": (tmp_path / "source").as_uri(), "one": str(tmp_path / "source/a.png")}[kind]
    with pytest.raises(UserError, match=r"picture by picture|no pictures but IDX files|is one picture"):
        listed(data, "", tmp_path / "listing")
