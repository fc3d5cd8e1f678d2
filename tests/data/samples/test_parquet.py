"""Parquet with the bytes of pictures, as Hugging Face publishes data sets."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.shared.core.errors import UserError
from components.shared.data.raw import Raw
from components.shared.storage.client import open_store
from tests.data.samples.reading import fetched, left_out, rows
from tests.sample_files import picture
from tests.servers.s3_server import BUCKET, S3Server
from tests.servers.web_server import WebServer

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
CLASSES = ["tabby cat", "T-shirt/top"]
FEATURES = {"image": {"_type": "Image"}, "label": {"names": CLASSES, "_type": "ClassLabel"}}


@pytest.fixture(autouse=True)
def _cache(cache: Path) -> None:
    """No test changes the user's cache."""


def write(path: Path, columns: dict[str, pa.Array], features: dict[str, Any] | None = None, rows: int = 2) -> Path:
    """Write a file, with Hugging Face's metadata if there are features, in groups of a few rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=rows)
    return path


def images(*numbers: int | None) -> pa.Array:
    found = [None if n is None else {"bytes": picture(n), "path": f"img/{n}.png" if n % 2 else None} for n in numbers]
    return pa.array(found, IMAGE)


def labelled(*numbers: int) -> dict[str, pa.Array]:
    return {"image": images(*numbers), "label": pa.array([n % 2 for n in numbers], pa.int64())}


def dataset(folder: Path) -> Path:
    write(folder / "data/train-00000-of-00002.parquet", labelled(1, 2, 3, 4, 5), FEATURES)
    write(folder / "data/train-00001-of-00002-b42a775f407cee45.parquet", labelled(6, 7), FEATURES)
    write(folder / "data/validation-00000-of-00001.parquet", labelled(8, 9), FEATURES)
    (folder / "README.md").write_text("pets")
    return folder


def expected(*numbers: int, split: str, file: str) -> list[tuple[str, str | None, str, bytes]]:
    shown = [f"{row}/{n}.png" if n % 2 else str(row) for row, n in enumerate(numbers)]
    return [
        (split, CLASSES[n % 2], f"{file}.parquet/{name}", picture(n)) for n, name in zip(numbers, shown, strict=True)
    ]


ROWS = [
    *expected(1, 2, 3, 4, 5, split="train", file="data/train-00000-of-00002"),
    *expected(6, 7, split="train", file="data/train-00001-of-00002-b42a775f407cee45"),
    *expected(8, 9, split="val", file="data/validation-00000-of-00001"),
]


def check(raw: Raw) -> None:
    assert (raw.kind, raw.classes, raw.counts) == ("samples", CLASSES, {"train": 7, "val": 2})
    assert rows(raw) == ROWS
    assert left_out(raw) == ["1 file beside the pictures left out: 1 .md"]


def test_hugging_faces_files_are_read(tmp_path: Path) -> None:
    check(fetched(dataset(tmp_path / "pets"), tmp_path / "raw"))
    assert not [path for path in (tmp_path / "raw").iterdir() if path.is_dir()]


@pytest.mark.slow
def test_files_in_a_bucket_are_read_like_a_folder(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    store = open_store(f"s3://{BUCKET}/parquet", server.environment)
    pets = dataset(tmp_path / "pets")
    for path in (path for path in pets.rglob("*") if path.is_file()):
        store.put_file(path, path.relative_to(pets).as_posix())
    check(fetched(f"s3://{BUCKET}/parquet", tmp_path / "raw"))
    one = fetched(f"s3://{BUCKET}/parquet/data/train-00001-of-00002-b42a775f407cee45.parquet", tmp_path / "one")
    assert [row[3] for row in rows(one)] == [picture(6), picture(7)]


def test_one_file_is_read_from_an_address(web_server: WebServer, tmp_path: Path) -> None:
    web_server.files["/train.parquet"] = write(tmp_path / "t.parquet", labelled(1, 2, 3), FEATURES).read_bytes()
    raw = fetched(f"{web_server.url}/train.parquet", tmp_path / "raw")
    assert rows(raw) == expected(1, 2, 3, split="all", file="train")


def test_columns_are_found_without_metadata(tmp_path: Path) -> None:
    pictures, extra = pa.array([picture(1), picture(2), picture(3)], pa.binary()), pa.array(["x", "y", "z"])
    labels = {"ints": pa.array([30, 4, 4], pa.int8()), "names": pa.array([" b", "a", "b"]).dictionary_encode()}
    for kind, found in (("ints", ["30", "4", "4"]), ("names", ["b", "a", "b"])):
        path = write(tmp_path / "x.parquet", {"pixels": pictures, "note": extra, "Class": labels[kind]})
        raw = fetched(path, tmp_path / "raw")
        assert [label for _, label, *_ in rows(raw)] == found
        assert raw.classes == sorted(set(found), key=lambda name: (len(name), name))


def test_the_metadata_tell_pictures_from_other_bytes(tmp_path: Path) -> None:
    columns = {"hash": pa.array([b"x", b"y"]), **labelled(1, 2)}
    assert rows(fetched(write(tmp_path / "x.parquet", columns, FEATURES), tmp_path / "raw"))[0][3] == picture(1)


def test_rows_without_a_class_or_a_picture_are_counted(tmp_path: Path) -> None:
    labels = pa.array([0, 1, -1, None, 1])
    path = write(tmp_path / "x.parquet", {"image": images(1, 2, 4, 6, None), "label": labels}, FEATURES)
    raw = fetched(path, tmp_path / "raw")
    assert [label for _, label, *_ in rows(raw)] == CLASSES
    assert left_out(raw) == [
        "1 of 3 pictures left out: 1 without bytes",
        "2 pictures without a label left out: 2 in x.parquet",
    ]
    raw = fetched(path, tmp_path / "all", needs_labels=False)
    assert [label for _, label, *_ in rows(raw)] == [*CLASSES, None, None]


def test_prediction_needs_no_column_of_classes(tmp_path: Path) -> None:
    raw = fetched(write(tmp_path / "x.parquet", {"image": images(2, 4)}), tmp_path / "raw", needs_labels=False)
    assert rows(raw) == [("all", None, f"x.parquet/{row}", picture(n)) for row, n in enumerate((2, 4))]
    assert raw.classes == []


@pytest.mark.parametrize(
    ("columns", "features", "reading", "message"),
    [
        (
            {"image": images(1), "id": pa.array([1])},
            None,
            {},
            r"which column has the classes is not clear; set label_columns=PICTURE,CLASS to two of its columns: image",
        ),
        (
            {"a": images(1), "b": images(2), "label": pa.array([1])},
            None,
            {},
            r"several columns have bytes: a, b; set label_columns=PICTURE,CLASS to two of its columns: a \(struct\), b",
        ),
        (
            {"img": images(1), "fine": pa.array([1]), "coarse": pa.array([1])},
            {"fine": FEATURES["label"], "coarse": FEATURES["label"]},
            {},
            "several columns have classes: fine, coarse; set label_columns=PICTURE,CLASS to two of its columns: img",
        ),
        (
            labelled(1),
            None,
            {"label_columns": "image,breed"},
            r"has no column 'breed'; set label_columns=.*label \(int",
        ),
        (
            labelled(1),
            None,
            {"label_columns": "label,image"},
            r"'label' has no bytes of pictures; its columns are image",
        ),
        (
            {"image": images(1), "label": pa.array([0.5])},
            None,
            {"label_columns": "image,label"},
            r"the column 'label' has values of type double; name one with the classes",
        ),
        (
            {"image": images(1, 2), "label": pa.array([0, 2])},
            FEATURES,
            {},
            r"x\.parquet/1 has the label 2, and the metadata of x\.parquet lists 2 classes; correct one of them",
        ),
        (labelled(2, 4), None, {}, r"holds one class only \('0'\)"),
        (labelled(1, 2), FEATURES, {"labels": "x.csv"}, "labels=x.csv has no effect: .* says the classes by itself"),
    ],
)
def test_a_file_that_is_not_clear_is_refused(
    tmp_path: Path, columns: dict[str, pa.Array], features: dict[str, Any] | None, reading: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        fetched(write(tmp_path / "x.parquet", columns, features), tmp_path / "raw", **reading)
    assert not (tmp_path / "raw").exists()


def test_a_folder_of_parquet_without_pictures_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "pets/x.parquet", {"id": pa.array([1]), "url": pa.array(["x"])})
    with pytest.raises(
        UserError, match=r"no column has bytes of pictures; its columns are id \(int64\), url \(string\);"
    ):
        fetched(tmp_path / "pets", tmp_path / "raw")


def test_one_of_several_columns_can_be_named(tmp_path: Path) -> None:
    names = {"fine": {"names": ["a", "b"], "_type": "ClassLabel"}, "coarse": FEATURES["label"]}
    columns = {"img": images(1, 2), "mask": images(3, 4), "fine": pa.array([0, 1]), "coarse": pa.array([1, 0])}
    path = write(tmp_path / "x.parquet", columns, names)
    raw = fetched(path, tmp_path / "raw", label_columns="mask,fine")
    assert [(label, content) for _, label, _, content in rows(raw)] == [("a", picture(3)), ("b", picture(4))]


@pytest.mark.parametrize(
    ("columns", "features", "message"),
    [
        ({"image": images(1), "y": pa.array([1])}, FEATURES, r"b\.parquet has other columns than a\.parquet: image"),
        (labelled(1), None, r"b\.parquet has other classes than a\.parquet: image \(struct\), label \(int64\); give"),
    ],
)
def test_files_of_different_columns_are_refused(
    tmp_path: Path, columns: dict[str, pa.Array], features: dict[str, Any] | None, message: str
) -> None:
    write(tmp_path / "pets/a.parquet", labelled(1, 2), FEATURES)
    write(tmp_path / "pets/b.parquet", columns, features)
    with pytest.raises(UserError, match=message):
        fetched(tmp_path / "pets", tmp_path / "raw")


def test_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    pets = dataset(tmp_path / "pets")
    whole = (pets / "data/validation-00000-of-00001.parquet").read_bytes()
    for damaged in (whole[:-20], whole[:4] + b"\xff" * 200 + whole[204:], b""):
        (pets / "data/validation-00000-of-00001.parquet").write_bytes(damaged)
        with pytest.raises(UserError, match=r"data/validation-00000-of-00001\.parquet cannot be read as Parquet \("):
            fetched(pets, tmp_path / "raw")


def test_columns_of_one_name_and_other_encodings_are_refused(tmp_path: Path) -> None:
    same = pa.table([images(1, 2), pa.array(["a", "b"]), pa.array([0, 1])], names=["image", "label", "label"])
    latin = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xe9"))
    texts = pa.table({"image": images(1, 2), "label": latin})
    for table, message in ((same, "has two columns 'label'; name them"), (texts, "cannot be read as Parquet .'utf-8'")):
        pq.write_table(table, tmp_path / "x.parquet")
        with pytest.raises(UserError, match=message):
            fetched(tmp_path / "x.parquet", tmp_path / "raw")
