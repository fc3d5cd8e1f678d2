"""What is wrong with a source or a store: one clear line, or a picture that is skipped and counted."""

import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.bigdata.partition import partition
from components.bigdata.settle import settle
from components.resolve import resolve
from components.shared.core.errors import UserError
from components.shared.data.dataset import Dataset, open_dataset
from components.shared.data.parts.stored_units import UnitDocument
from components.shared.parameters.preparation import PreprocessRecipe, ReadingRecipe
from components.shared.storage.client import Store
from tests.bigdata.parts import SIZE, UNIT, listed, prepare_part, prepared, prepared_alone
from tests.data.samples import test_parquet
from tests.data.versions import version_of
from tests.sample_files import picture, tar_bytes
from tests.servers.s3_server import Proxy, answer

Files = Mapping[str, bytes]
RANDOM = np.random.default_rng(0)


def noise(*shape: int) -> bytes:
    """Return a picture that has no copy."""
    content = io.BytesIO()
    Image.fromarray(RANDOM.integers(0, 256, shape, dtype=np.uint8)).save(content, "PNG")
    return content.getvalue()


PICTURES = {f"{name}/{number}.png": noise(SIZE, SIZE) for name in "ab" for number in range(8)}


def stored(files: Files, store: Store) -> str:
    """Store the files of a source; return its address."""
    for name, content in files.items():
        store.put_bytes(content, f"source/{name}")
    return store.uri("source")


def packed(kind: str, files: Files, folder: Path) -> Files:
    """Return the files as they are, or in an archive, which may have a name twice."""
    if kind == "prefix":
        return files
    if kind == "tar":
        return {"a.tar": tar_bytes(dict(files), "w")}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return {"a.zip": content.getvalue()}


def bad(data: Dataset) -> list[tuple[str, str]]:
    return [(image.name, image.reason) for image in data.document.bad_images or []]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["prefix", "tar", "zip"])
@pytest.mark.parametrize("content", [b"", PICTURES["a/3.png"][:60]], ids=["empty", "cut"])
def test_a_picture_that_cannot_be_read_is_skipped_or_named(
    store: Store, uri: str, tmp_path: Path, kind: str, content: bytes
) -> None:
    source = stored(packed(kind, {**PICTURES, "a/3.png": content}, tmp_path), store)
    skipped = prepared(listed(source, uri, tmp_path / "listing", max_bad_images=1), [1, 0], tmp_path / "dataset")
    ((name, reason),) = bad(skipped)
    assert name.endswith("a/3.png") and reason and sum(skipped.counts.values()) == len(PICTURES) - 1
    listing = listed(source, uri, tmp_path / "strict", max_bad_images=0)
    with pytest.raises(
        UserError, match=r"picture (a/)?a/3\.png cannot be used: .*; repair or remove it, or set max_bad"
    ):
        prepare_part(listing, 0, 1)


@pytest.mark.parametrize(
    ("count", "split", "shares"),
    [(1, "val", {}), (2, "val", {}), (3, "val", {"test_fraction": 0.6}), (3, "", {})],
)
def test_a_class_of_too_few_pictures_is_refused_unread(
    store: Store, uri: str, tmp_path: Path, count: int, split: str, shares: dict[str, float]
) -> None:
    few = {f"eel/{number}.png": b"not read" for number in range(count)}
    source = stored({"source.tar": tar_bytes({**PICTURES, **few}, "w")}, store) + "/source.tar"
    if not split:
        listed(source, uri, tmp_path / "listing", value_range="0,255")
        return
    with pytest.raises(
        UserError, match=f"class 'eel' has 0 images in the {split} split, of {count} in all .*; add pic"
    ):
        listed(source, uri, tmp_path / "listing", **shares)
    assert not (tmp_path / "listing").exists()


SAMPLE = {"cls": b"1", "png": picture(0)}
OTHERS = {f"{number}.{kind}": content for number in range(4) for kind, content in [("cls", b"0"), ("png", picture(1))]}
MANY = "\n".join(f"a/{number}.png,{number}" for number in range(5))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"train.tar": tar_bytes({**OTHERS, "x.cls": b"-3", "x.png": b"y"}, "w")},
            r"x\.png has the label -3; number the classes from 0 on",
        ),
        (
            {"classnames.txt": b"cat\ndog\n", "train.tar": tar_bytes({**OTHERS, "x.cls": b"2", "x.png": b"y"}, "w")},
            r"x\.png has the label 2, and classnames\.txt lists 2 classes; correct one of them",
        ),
        (
            {"train.tar": tar_bytes({**OTHERS, "x.cls": b"1", "0.jpg": b"y", "x.png": b"y"}, "w")},
            r"the key train/0 comes again after others; pack the files of a sample side by side",
        ),
        ({"train.tar": tar_bytes({**OTHERS, "x.cls": b"1.5", "x.png": b"y"}, "w")}, r"x\.cls"),
        (
            {"classnames.txt": b"cat\neel\n\n", "train.tar": tar_bytes(OTHERS, "w")},
            r"class 'eel' has 0 images in the train split, of 0 in all .*; add pictures of it, or remove the class",
        ),
    ],
    ids=["negative", "not-listed", "twice", "fraction", "without-pictures"],
)
def test_a_sample_that_is_not_clear_is_refused(
    store: Store, uri: str, tmp_path: Path, files: Files, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        listed(stored(files, store), uri, tmp_path / "listing")
    assert not (tmp_path / "listing").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na/1.png,x\na/gone.png,y\nb/1.png,y\n", r"1 of 3 pictures left out: 1 missing.*max_left_out=0\.1"),
        ("a,b,c\n1,2,3\n", r"which column has the paths of the pictures is not clear; set label_columns=PICTURE,CLASS"),
        ("path,class\na/1.png,x\na/1.png\n", r"row 3 has 1 cells, and the first row 2"),
    ],
    ids=["missing", "columns", "cells"],
)
def test_a_manifest_that_is_not_clear_is_refused(
    store: Store, uri: str, tmp_path: Path, text: str, message: str
) -> None:
    source = stored({**PICTURES, "pets.csv": text.encode()}, store)
    with pytest.raises(UserError, match=message):
        listed(f"{source}/pets.csv", uri, tmp_path / "listing")
    assert not (tmp_path / "listing").exists()


def test_more_classes_than_allowed_are_refused(
    store: Store, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.shared.data.samples.classes.MAX_CLASSES", 3)
    source = stored({**PICTURES, "pets.csv": f"path,label\n{MANY}\n".encode()}, store)
    with pytest.raises(UserError, match=r"has more than 3 classes; give labels that many pictures share"):
        listed(f"{source}/pets.csv", uri, tmp_path / "listing")


def test_a_picture_that_a_manifest_names_twice_stays_twice(store: Store, uri: str, tmp_path: Path) -> None:
    rows = [f"{name},{name[0]}" for name in PICTURES]
    text = "\n".join(["path,label", *rows, rows[0], rows[0].replace(",a", ",b")])
    source = stored({**PICTURES, "pets.csv": text.encode()}, store)
    data = prepared(listed(f"{source}/pets.csv", uri, tmp_path / "listing", seed=1), [0], tmp_path / "dataset")
    copies = data.document.duplicates
    assert copies and (copies.repeated_images, copies.of_these_with_conflicting_labels) == (1, 1)


@pytest.mark.parametrize(
    ("data", "within", "is_refused"),
    [
        ("source", "source/t2k", True),
        ("source", "source", True),
        ("source/pets.csv", "source/t2k", True),
        ("source/pets.tar", "source/t2k", False),
        ("source", "source-of-others", False),
    ],
)
def test_a_store_within_the_data_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch, data: str, within: str, is_refused: bool
) -> None:
    stored({**PICTURES, "pets.csv": b"path,label\na/0.png,a\n", "pets.tar": tar_bytes(dict(PICTURES), "w")}, store)
    given = {"data": store.uri(data), "store": store.uri(within)}
    if not is_refused:
        resolve(graph="training", options={}, **given)
        return
    with pytest.raises(UserError) as caught:
        resolve(graph="training", options={}, **given)
    place = f"store={given['store']} is within data={given['data']}"
    assert str(caught.value) == f"{place}, so that what runs store would become part of the data; give another store"
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "ENDPOINT_URL_S3"):
        monkeypatch.setenv(f"SOURCE_AWS_{name}", os.environ[f"AWS_{name}"].replace("127.0.0.1", "localhost"))
    resolve(graph="training", options={}, **given)  # a bucket of the same name at another server


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (
            "folders",
            {"label_columns": "path,label"},
            "label_columns=path,label has no effect without labels; set labels=",
        ),
        (
            "samples",
            {"labels": "other.csv"},
            "labels=other.csv has no effect: data=s3://.* says the classes by itself; ",
        ),
        ("samples", {"data_layout": "groups"}, "data_layout=groups has no effect: data=s3://.* says the classes by "),
    ],
)
def test_a_parameter_without_effect_is_refused(
    store: Store, uri: str, tmp_path: Path, kind: str, given: dict[str, str], message: str
) -> None:
    table = test_parquet.write(tmp_path / "a.parquet", test_parquet.labelled(1, 2, 3), test_parquet.FEATURES)
    source = stored(PICTURES if kind == "folders" else {"a.parquet": table.read_bytes()}, store)
    recipe, reading = PreprocessRecipe.of(store=uri).text(), ReadingRecipe.of(**given).text()
    with pytest.raises(UserError, match=f"^{message}"):
        partition(data=source, version="", reading=reading, recipe=recipe, listing=str(tmp_path / "listing"))


def test_what_is_left_out_is_logged(store: Store, uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed(stored({**PICTURES, "a/film.mp4": b"film", "b/note.txt": b"note"}, store), uri, tmp_path / "listing")
    output = capsys.readouterr().out
    assert "1 file beside the pictures left out: 1 .txt" in output
    assert "1 file that is no picture left out: 1 .mp4" in output


def test_an_empty_prefix_is_refused(store: Store, uri: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data=s3://.*/source holds no objects; check the address"):
        version_of(store.uri("source"))
    store.put_bytes(b"no picture", "source/notes.txt")
    with pytest.raises(UserError, match=r"/source holds no pictures"):
        listed(store.uri("source"), uri, tmp_path / "listing")


@pytest.mark.slow
def test_parts_of_any_skew_give_what_one_pod_prepares(store: Store, uri: str, tmp_path: Path) -> None:
    """Units of one class alone, pictures of very different sizes, and parts that have no units."""
    files: dict[str, bytes] = {}
    for name, count in (("a", 3 * UNIT), ("b", 5), ("c", 1 + UNIT)):
        for number in range(count):
            side = (1, 7, SIZE, 900)[number % 4]
            files[f"{name}/{number:02}.png"] = noise(side + 8 * (side == 1), 1 + side // 3)
    source = stored(files, store)
    many = prepared(listed(source, uri, tmp_path / "listing"), range(9), tmp_path / "many")
    alone = prepared_alone(source, tmp_path)
    assert (many.digest, many.document.splits) == (alone.digest, alone.document.splits)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["partition", "prepare", "settle"])
def test_a_store_that_throttles_is_asked_again(
    store: Store, uri: str, tmp_path: Path, s3_proxy: Proxy, waits: list[float], step: str
) -> None:
    source = stored(PICTURES, store)
    throttle = 5 * [answer(503, "SlowDown", Retry_After="0")]
    s3_proxy.script = throttle if step == "partition" else []
    listing = listed(source, uri, tmp_path / "listing")
    s3_proxy.script += throttle if step == "prepare" else []
    parts = [prepare_part(listing, 0, 1)]
    s3_proxy.script += throttle if step == "settle" else []
    settle(listing=str(listing), parts=parts, dataset=str(tmp_path / "dataset"))
    assert not s3_proxy.script and sum(open_dataset(tmp_path / "dataset").counts.values()) == len(PICTURES)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["rows", "no-rows", "document", "shard"])
def test_a_unit_that_the_store_damaged_is_prepared_again(
    store: Store, uri: str, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = listed(stored(PICTURES, store), uri, tmp_path / "listing")
    parts = [prepare_part(listing, 0, 1)]
    document, rows = (f"{folder_of(store)}/000000001.{suffix}" for suffix in ("json", "parquet"))
    shard = UnitDocument.parse(store.get_bytes(document)[0], "").shards["train"].images.sha256
    name = {"document": document, "shard": f"datasets/shards/{shard}.npy"}.get(damage, rows)
    content = store.get_bytes(name)[0]
    if damage == "no-rows":
        store.remove(name)
    else:
        store.put_bytes(content[:-300] + bytes([content[-300] ^ 1]) + content[-299:], name)
    with pytest.raises(UserError, match=MESSAGES[damage]):
        settle(listing=str(listing), parts=parts, dataset=str(tmp_path / "dataset"))
    assert not (tmp_path / "dataset").exists()
    if damage == "shard":
        store.remove(name)  # as the message says
    capsys.readouterr()
    again = prepared(listing, [0], tmp_path / "again")
    assert "units of up to 8 pictures: 2; already in the store: 1" in capsys.readouterr().out
    assert again.digest == prepared_alone(store.uri("source"), tmp_path).digest


def test_a_document_that_the_store_damaged_is_written_again(store: Store, uri: str, tmp_path: Path) -> None:
    listing = listed(stored(PICTURES, store), uri, tmp_path / "listing")
    prepared(listing, [0], tmp_path / "first")
    (name,) = [entry.name for entry in store.list("datasets") if entry.name.endswith("dataset.json")]
    content, _ = store.get_bytes(name)
    store.put_bytes(content[:100], name)
    prepared(listing, [0], tmp_path / "second")
    assert store.get_bytes(name)[0] == content


def folder_of(store: Store) -> str:
    """Return the only folder of units."""
    (name,) = {entry.name.rpartition("/")[0] for entry in store.list("units")}
    return name


MESSAGES = {
    "rows": r"unit 1 of 2 was damaged and is removed \(.*000000001\.parquet is damaged.*\); run it again",
    "no-rows": r"unit 1 of 2 was damaged and is removed \(.*000000001\.parquet.*\); run it again",
    "document": r"unit 1 of 2 is not in s3://.*; run it again",
    "shard": r"\.npy cannot be used",
}
