"""WebDataset: tar files with the files of a sample side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from components.shared.core.errors import UserError
from components.shared.data.layout.reading import Reading
from components.shared.data.sources.schemes import open_listed_source
from components.shared.storage.client import open_store
from tests.data.samples.reading import fetched, left_out, rows
from tests.sample_files import picture, tar_bytes
from tests.servers.s3_server import BUCKET, S3Server
from tests.servers.web_server import WebServer

Files = dict[str, bytes]
SHARDS: dict[str, Files] = {
    "pets-train-000000.tar": {
        "a/0001.cls": b"1\n",
        "a/0001.jpg": picture(1),
        "a/0001.txt": b"a dog",
        "a/0002.b.txt": b"a cat",
        "a/0002.cls": b"0",
        "a/0002.PNG": picture(2),
        "a/._0002.PNG": b"x",
    },
    "pets-train-000001.tar": {"a/0001.cls": b"10", "a/0001.jpg": picture(3), "a/0002.jpg": picture(4)},
    "pets-val-000000.tar": {"b.cls": b"1", "b.seg.png": picture(9), "b.jpg": picture(5)},
}
ROWS = [
    ("train", "1", "pets-train-000000/a/0001.jpg", picture(1)),
    ("train", "0", "pets-train-000000/a/0002.PNG", picture(2)),
    ("train", "10", "pets-train-000001/a/0001.jpg", picture(3)),
    ("val", "1", "pets-val-000000/b.jpg", picture(5)),
]


@pytest.fixture(autouse=True)
def _cache(cache: Path) -> None:
    """No test changes the user's cache."""


def folder(path: Path, shards: Mapping[str, Files | bytes]) -> Path:
    for name, files in shards.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(files if isinstance(files, bytes) else tar_bytes(files, "w"))
    return path


def one(files: Files, path: Path) -> Path:
    """Write a tar that also holds a sample of each of two classes."""
    base = {"x1.cls": b"0", "x1.png": picture(91), "x2.cls": b"1", "x2.png": picture(92)}
    return folder(path, {"set.tar": base | files}) / "set.tar"


def test_samples_are_grouped_by_key_and_split_by_shard(tmp_path: Path) -> None:
    raw = fetched(folder(tmp_path / "pets", SHARDS), tmp_path / "raw")
    assert (raw.kind, raw.classes, raw.counts) == ("samples", ["0", "1", "10"], {"train": 3, "val": 1})
    assert rows(raw) == ROWS
    assert left_out(raw) == [
        "1 picture without a label left out: 1 in pets-train-000001/a",
        "2 files beside the pictures left out: 2 .txt",
        "1 file of other programs left out: 1 ._*",
        "1 file that is no picture left out: 1 .seg.png",
    ]
    assert {path.name for path in (tmp_path / "raw").iterdir()} == {
        *("raw.json", "train-00000.tar", "train-labels.npy", "val-00000.tar", "val-labels.npy")
    }


def test_prediction_takes_samples_without_a_label(tmp_path: Path) -> None:
    raw = fetched(folder(tmp_path / "pets", SHARDS), tmp_path / "raw", needs_labels=False)
    unlabelled = ("train", None, "pets-train-000001/a/0002.jpg", picture(4))
    assert rows(raw) == [*ROWS[:3], unlabelled, ROWS[3]]


def test_the_class_may_be_a_field_of_a_json(tmp_path: Path) -> None:
    files = {
        "1.jpg": picture(1),
        "1.json": b'{"label": "cat", "n": 5}',
        "2.jpg": picture(2),
        "2.json": b'{"class": "dog"}',
        "3.jpg": picture(3),
        "3.json": b'{"n": 5}',
    }
    pets = folder(
        tmp_path / "pets", {"00000.tar": files, "00001.tar": {"1.jpg": picture(4), "1.json": b'{"cls":"cat"}'}}
    )
    raw = fetched(pets, tmp_path / "raw")
    assert [(split, label) for split, label, *_ in rows(raw)] == [("all", "cat"), ("all", "dog"), ("all", "cat")]
    assert left_out(raw) == ["1 picture without a label left out: 1 in 00000"]


def test_several_fields_are_refused_until_one_is_named(tmp_path: Path) -> None:
    files = {
        f"{n}.{end}": content
        for n in (1, 2)
        for end, content in {
            "jpg": picture(n),
            "thumb.png": b"",
            "json": f'{{"label": {n}, "class": "c{n}", "kind": "k{n}"}}'.encode(),
        }.items()
    }
    tar = folder(tmp_path, {"pets.tar": files}) / "pets.tar"
    with pytest.raises(UserError, match=r"1\.json has the fields label and class; set label_columns=jpg,label to take"):
        fetched(tar, tmp_path / "raw")
    for column, classes in (("label", ["1", "2"]), ("kind", ["k1", "k2"])):
        raw = fetched(tar, tmp_path / "raw", label_columns=f"jpg,{column}")
        assert (raw.classes, raw.counts) == (classes, {"all": 2})


@pytest.mark.parametrize("names", [("cat", "dog"), ("train-000000", "train-000001", "val-000000")])
@pytest.mark.parametrize(("column", "missing"), [("lable", "no"), ("cls", "no .cls is beside a picture, and no")])
def test_a_field_that_no_json_has_is_refused(tmp_path: Path, names: Sequence[str], column: str, missing: str) -> None:
    document = b'{"label": "cat", "id": 7, "caption": "a cat"}'
    shards = {f"{name}.tar": {"1.json": document, "1.png": picture(n)} for n, name in enumerate(names)}
    pets = folder(tmp_path / "pets", shards)
    fields = "set label_columns=png,FIELD to one of its fields: label, id, caption"
    message = f"{missing} .json has the field '{column}'; {fields}"
    for data in (pets, pets / f"{names[0]}.tar"):
        with pytest.raises(UserError, match=message):
            fetched(data, tmp_path / "raw", label_columns=f"png,{column}")
        with pytest.raises(UserError, match=message):
            open_listed_source(str(data)).listing(Reading(label_columns=f"png,{column}"), "")


def test_a_list_of_classes_names_the_numbers(tmp_path: Path) -> None:
    names = {"classnames.txt": b"tabby cat\ndog\n\n \n"}
    raw = fetched(folder(tmp_path / "pets", {"0.tar": {**SHARDS["pets-train-000000.tar"]}, **names}), tmp_path / "raw")
    assert raw.classes == ["tabby cat", "dog"]
    assert [label for _, label, *_ in rows(raw)] == ["dog", "tabby cat"]
    with pytest.raises(UserError, match=r"a/0001.jpg has the label 10, and classnames.txt lists 2 classes; correct"):
        fetched(folder(tmp_path / "all", {**SHARDS, **names}), tmp_path / "raw")
    twice = {"classnames.txt": b"crane\ncrane\n"}
    with pytest.raises(UserError, match=r"classnames.txt gives the classes 0 and 1 the same name 'crane'; name them"):
        fetched(folder(tmp_path / "twice", {**SHARDS, **twice}), tmp_path / "raw")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"1.cls": b"3.5", "1.jpg": b"x"}, "1.cls has the label '3.5'; write the number or the name of a class"),
        ({"1.cls": b"\xff", "1.jpg": b"x"}, r"1.cls is not in UTF-8; write"),
        ({"1.cls": b"-2", "1.jpg": b"x"}, "1.jpg has the label -2; number the classes from 0 on"),
        ({"1.cls": b"cat", "1.jpg": b"x"}, "the label of x1.png is the number 0, and that of 1.jpg 'cat'; use one"),
        ({"1.jpg": b"x", "1.json": b'{"label": [1]}'}, r"1.json has the label \[1\]; write the number or the name"),
        ({"1.jpg": b"x", "1.json": b"{"}, "1.json cannot be read as a JSON object; correct it"),
        ({"1.cls": b"1", "1.jpg": b"x", "1.png": b"y"}, "one sample has the pictures 1.jpg, 1.png; set label_columns="),
        ({"1.cls": b"1", "2.cls": b"1", "1.jpg": b"x"}, "the key 1 comes again after others; pack the files of a"),
        ({"1.cls": b"1", "1.jpg": b"x", "1.JPG": b"x"}, "1.JPG comes twice; pack the files of a sample side by side"),
        ({"1.cls": b"1", "1.jpg": b"x", "val/1.cls": b"1", "val/1.jpg": b"x"}, "in no split beside those of val; name"),
    ],
)
def test_a_sample_that_is_not_clear_is_refused(tmp_path: Path, files: Files, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fetched(one(files, tmp_path), tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_empty_files_are_no_class_and_a_bad_picture(tmp_path: Path) -> None:
    raw = fetched(one({"1.cls": b"", "1.jpg": b"x", "2.cls": b"1", "2.jpg": b""}, tmp_path), tmp_path / "raw")
    assert rows(raw)[-1] == ("all", "1", "2.jpg", b"")  # which step preprocess names
    assert left_out(raw) == ["1 picture without a label left out: 1 in the source"]


def test_damage_in_the_middle_of_a_tar_is_one_line(tmp_path: Path) -> None:
    whole = tar_bytes(SHARDS["pets-train-000000.tar"], "w")
    cut = whole[:1500] + b"\xff" * 700 + whole[2200:]
    pets = folder(tmp_path / "pets", {"a-000.tar": SHARDS["pets-train-000000.tar"], "a-001.tar": cut})
    with pytest.raises(
        UserError, match=r"pets: a-001\.tar cannot be read as an archive \(truncated, or a damaged head"
    ):
        fetched(pets, tmp_path / "raw")


def test_shards_that_are_partly_named_like_splits_are_refused(tmp_path: Path) -> None:
    shards = {f"{name}-0.tar": SHARDS["pets-val-000000.tar"] for name in ("train", "val", "more")}
    with pytest.raises(UserError, match="more-0 beside files of the split train; name the split of all files, or of"):
        fetched(folder(tmp_path / "pets", shards), tmp_path / "raw")


def test_tars_of_classes_stay_folders(tmp_path: Path) -> None:
    boxes = b'{"shapes": []}'
    shards = {f"{name}.tar": {"1.jpg": picture(n), "1.json": boxes} for n, name in enumerate(("cat", "dog"))}
    raw = fetched(folder(tmp_path / "pets", shards), tmp_path / "raw")
    assert (raw.kind, raw.classes) == ("pictures", ["cat", "dog"])
    named = folder(tmp_path / "named", {"cat.tar": SHARDS["pets-train-000000.tar"], "dog.tar": {"1.jpg": picture(4)}})
    raw = fetched(named, tmp_path / "raw", data_layout="classes")
    assert (raw.kind, raw.classes) == ("pictures", ["cat", "dog"])


def test_other_files_of_pictures_may_have_any_fields(tmp_path: Path) -> None:
    files = {f"{end}/{n}.{end}": picture(n) for n in range(2) for end in ("png", "jpg")}
    tar = folder(tmp_path, {"pets.tar": {**files, "about.json": b'{"licence": "CC0"}'}}) / "pets.tar"
    description, _ = open_listed_source(str(tar)).listing(Reading(label_columns="png,label"), "")
    assert description["classes"] == ["jpg", "png"], "no picture has it beside it"


def test_columns_without_a_table_are_refused(tmp_path: Path) -> None:
    shards = {f"{name}.tar": {"1.jpg": picture(n)} for n, name in enumerate(("cat", "dog"))}
    with pytest.raises(UserError, match=r"label_columns=a,b has no effect without labels; set labels=FILE.csv"):
        fetched(folder(tmp_path / "pets", shards), tmp_path / "raw", label_columns="a,b")


def test_one_tar_is_read_from_an_address(web_server: WebServer, tmp_path: Path) -> None:
    web_server.files["/pets.tar.gz"] = tar_bytes(SHARDS["pets-train-000000.tar"])
    raw = fetched(f"{web_server.url}/pets.tar.gz", tmp_path / "raw")
    assert rows(raw) == [("all", label, name.partition("/")[2], content) for _, label, name, content in ROWS[:2]]
    assert not list((tmp_path / "raw").glob("download*"))


@pytest.mark.slow
def test_shards_below_a_prefix_are_read_like_a_folder(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    store = open_store(f"s3://{BUCKET}/shards", server.environment)
    for name, files in SHARDS.items():
        store.put_bytes(tar_bytes(files, "w"), name)
    assert rows(fetched(f"s3://{BUCKET}/shards", tmp_path / "raw")) == ROWS
