"""Manifests: tables that say where pictures are, of which class and of which split."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.preprocess import preprocess
from components.shared.core.errors import UserError
from components.shared.parameters.preparation import PreprocessRecipe
from components.shared.storage.client import open_store
from tests.data.samples.reading import fetched, left_out, rows
from tests.data.versions import version_of
from tests.sample_files import picture
from tests.servers.s3_server import BUCKET, S3Server
from tests.servers.web_server import WebServer


@pytest.fixture(autouse=True)
def _cache(cache: Path) -> None:
    """No test changes the user's cache."""


def manifest(folder: Path, text: str, name: str = "pets.csv", pictures: int = 40) -> Path:
    """Write a manifest, and pictures img/0.png, img/1.png, ... beside it."""
    (folder / "pets/img").mkdir(parents=True, exist_ok=True)
    for number in range(pictures):
        (folder / f"pets/img/{number}.png").write_bytes(picture(number))
    (folder / "pets" / name).write_text(text, encoding="utf-8")
    return folder / "pets" / name


ROWS = [
    ("train", "dog", "img/3.png", picture(3)),
    ("train", "a/b", "img/1.png", picture(1)),
    ("test", "dog", "img/2.png", picture(2)),
]


def test_paths_classes_and_splits_are_read(tmp_path: Path) -> None:
    text = "subset;label;path\nTRAIN;dog;./img/3.png\ntesting;dog;img\\2.png\n\ntrain;a/b;{}/img/1.png\n"
    path = manifest(tmp_path, text.format(tmp_path / "pets"))
    raw = fetched(path, tmp_path / "raw")
    assert (raw.classes, raw.counts) == (["a/b", "dog"], {"train": 2, "test": 1})
    assert rows(raw) == ROWS


def test_a_parquet_manifest_has_numbers_or_names(tmp_path: Path) -> None:
    path = manifest(tmp_path, "", "pets.parquet")
    uri = (tmp_path / "pets/img/1.png").as_uri()
    table = pa.table(
        {
            "junk": pa.array([[1.5], [2.5], [3.5]]),
            "file_name": ["img/3.png", uri, "img/2.png"],
            "Label": pa.array([20, 3, 20]),
            "split": ["train", "train", "test"],
        }
    )
    pq.write_table(table, path)
    raw = fetched(path, tmp_path / "raw")
    assert raw.classes == ["3", "20"]
    assert [(row[0], *row[2:]) for row in rows(raw)] == [(row[0], *row[2:]) for row in ROWS]


def test_a_first_row_may_be_data(tmp_path: Path) -> None:
    raw = fetched(manifest(tmp_path, "img/1.png,cat\nimg/2.png,dog\n"), tmp_path / "raw")
    assert [row[1:3] for row in rows(raw)] == [("cat", "img/1.png"), ("dog", "img/2.png")]


def test_many_rows_keep_their_order(tmp_path: Path) -> None:
    lines = [f"img/{number * 7 % 40}.png,c{number % 3}" for number in range(40)]
    raw = fetched(manifest(tmp_path, "path,label\n" + "\n".join(lines)), tmp_path / "raw")
    assert [f"{name},{label}" for _, label, name, _ in rows(raw)] == lines


def test_a_missing_picture_counts_towards_max_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "path,label,split\n" + "".join(f"img/{n}.png,c{n % 2},\n" for n in range(40)) + "img/x.png,c1,\nimg,c1,\n"
    raw = fetched(manifest(tmp_path, text), tmp_path / "raw")
    assert (raw.counts, left_out(raw)) == ({"all": 40}, ["2 of 42 pictures left out: 2 missing"])
    assert "pets.csv: row 42 names img/x.png, which is not there" in capsys.readouterr().out
    recipe = PreprocessRecipe(max_left_out=0.01).text()
    with pytest.raises(
        UserError,
        match=r"pets\.csv: 2 of 42 pictures left out: 2 missing, more than max_left_out=0\.01; add them or remove",
    ):
        preprocess(raw=str(tmp_path / "raw"), recipe=recipe, prepared_by="", dataset=str(tmp_path / "data"))


def test_prediction_takes_rows_without_a_class(tmp_path: Path) -> None:
    path = manifest(tmp_path, "path,label,split\nimg/1.png,cat,train\nimg/2.png,,unlabelled\nimg/3.png,dog,train\n")
    assert left_out(fetched(path, tmp_path / "raw")) == ["1 picture without a label left out: 1 in img"]
    raw = fetched(path, tmp_path / "all", needs_labels=False)
    assert [(label, name) for _, label, name, _ in rows(raw)] == [
        *(("cat", "img/1.png"), ("dog", "img/3.png")),
        (None, "img/2.png"),
    ]
    raw = fetched(manifest(tmp_path, "path\nimg/1.png\n"), tmp_path / "bare", needs_labels=False)
    assert rows(raw) == [("all", None, "img/1.png", picture(1))]


@pytest.mark.parametrize(
    ("text", "reading", "message"),
    [
        (
            "a,b,c\nx,y,z\n",
            {},
            "which column has the paths of the pictures is not clear; set label_columns=.*: a, b, c",
        ),
        ("path,a,b\nimg/1.png,y,z\n", {}, "which column has the classes is not clear; set label_columns=PICTURE,CLASS"),
        ("path,a\nx,y\n", {"label_columns": "path,b"}, r"pets\.csv has no column 'b'; set label_columns=.*: path, a"),
        (
            "path,label\n../x.png,y\n",
            {},
            r"row 2 names '\.\./x\.png', which leads outside of .*/pets, where the manifest",
        ),
        (
            "path,label\n/etc/passwd,y\n",
            {},
            "row 2 names '/etc/passwd', which leads outside of .*; put the pictures th",
        ),
        (
            "path,label\nlink.png,y\n",
            {},
            r"row 2 names 'link\.png', which leads outside of .*/pets, where the manifest",
        ),
        (
            "path,label\nhttps://h/x.png,y\n",
            {},
            "'https://h/x.png', which is at an address that is not s3://; download",
        ),
        ("path,label\ns3://k:s@b/x.png,y\n", {}, "which is no address of an object; give s3://bucket/key without a"),
        ("path,label\n,y\n", {}, "row 2 names no picture; name one, or remove the row"),
        ("path,label,split\nimg/1.png,y,eval\n", {}, "row 2 has the split 'eval'; name it train, val or test"),
        ("path,label\nimg/1.png,x\nimg/2.png\n", {}, r"pets\.csv: row 3 has 1 cells, and the first row 2; correct it"),
        ("", {}, r"pets\.csv begins with no row; give a CSV with the pictures and their classes"),
        (
            "path,label\nx.png,a\ny.png,b\n",
            {},
            r"holds no pictures that have a label \(2 of 2 pictures left out: 2 mis",
        ),
        ("path,label,split\nimg/1.png,a,train\nimg/2.png,b,\n", {}, "has pictures in no split beside those of train;"),
        ("path,label\n" + "x" * 200_000, {}, r"pets\.csv: row 2 cannot be read as CSV \(field larger than field limit"),
        (
            'label,path\na,img/1.png\n\nb,"img/2.png\na,img/3.png\nb,img/4.png\n',
            {},
            r"pets\.csv: row 4 cannot be read as CSV \(unexpected end of data\); correct its quotes, or save it as CSV",
        ),
        (
            'label,path\na,"img/1.png\nb,"img/2.png"\n',
            {},
            r"pets\.csv: row 2 cannot be read as CSV \(',' expected after '\"'\); correct its quotes",
        ),
        ('label,"path\na,img/1.png\n', {}, r"pets\.csv: row 1 cannot be read as CSV \(unexpected end of data\)"),
    ],
)
def test_a_manifest_that_is_not_clear_is_refused(
    tmp_path: Path, text: str, reading: dict[str, Any], message: str
) -> None:
    path = manifest(tmp_path, text)
    (tmp_path / "outside.png").write_bytes(picture(1))
    (tmp_path / "pets/link.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(UserError, match=message):
        fetched(path, tmp_path / "raw", **reading)
    assert not (tmp_path / "raw").exists()


def test_the_version_depends_on_the_pictures_too(tmp_path: Path) -> None:
    path = manifest(tmp_path, "path,label\nimg/1.png,a\n")
    first = version_of(str(path))
    assert version_of(str(path)) == first
    os.utime(tmp_path / "pets/img/1.png", (1, 1))
    assert version_of(str(path)) != first


def test_a_manifest_at_an_address_names_no_paths(web_server: WebServer, tmp_path: Path) -> None:
    web_server.files["/pets.csv"] = b"path,label\nimg/1.png,cat\n"
    with pytest.raises(UserError, match=r"row 2 names 'img/1.png', which is a path, and the manifest is at an https a"):
        fetched(f"{web_server.url}/pets.csv", tmp_path / "raw")


@pytest.mark.slow
def test_manifests_name_objects_in_s3(
    server: S3Server, web_server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    store = open_store(f"s3://{BUCKET}/manifests", server.environment)
    for number in range(4):
        store.put_bytes(picture(number), f"img/{number}.png")
    lines = ["path,label,split", "img/3.png,dog,train", "./img/2.png,dog,test"]
    uri = f"s3://{BUCKET}/manifests/img/1.png"
    store.put_bytes("\n".join([*lines, f"{uri},a/b,train", "img/x.png,dog,train"]).encode(), "pets.csv")
    found = [("train", "a/b", uri.removeprefix("s3://"), picture(1)) if row[1] == "a/b" else row for row in ROWS]
    raw = fetched(f"s3://{BUCKET}/manifests/pets.csv", tmp_path / "raw")
    assert rows(raw) == found
    assert left_out(raw) == ["1 of 4 pictures left out: 1 missing"]
    version = version_of(f"s3://{BUCKET}/manifests/pets.csv")
    store.put_bytes(picture(9), "img/3.png")
    assert version_of(f"s3://{BUCKET}/manifests/pets.csv") != version
    web_server.files["/pets.csv"] = f"uri,label\n{uri},a\n{uri.replace('1.png', '2.png')},b\n".encode()
    assert [row[3] for row in rows(fetched(f"{web_server.url}/pets.csv", tmp_path / "web"))] == [picture(1), picture(2)]
    store.put_bytes(b"path,label\n../secret.png,dog\n", "pets.csv")
    with pytest.raises(
        UserError, match=rf"which leads outside of s3://{BUCKET}/manifests, where the manifest is; give"
    ):
        fetched(f"s3://{BUCKET}/manifests/pets.csv", tmp_path / "outside")
