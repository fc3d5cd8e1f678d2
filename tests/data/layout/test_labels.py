"""Labels in a table beside the pictures."""

from pathlib import Path

import pytest

from components.download import download
from components.shared.core.errors import UserError
from components.shared.data.layout.label_table import Names, label_pictures, read_table
from components.shared.data.raw import Raw, open_raw
from components.shared.parameters.preparation import ReadingRecipe
from tests.data.versions import version_of
from tests.sample_files import packed, picture

NAMES = ["train/1.png", "train/2.png", "train/3.png", "train/cat.x.png", "test/1.png"]
ONE_TWO = {"train/1.png": "cat", "train/2.png": "dog"}


@pytest.fixture(autouse=True)
def _cache(cache: Path) -> None:
    """No test changes the user's cache."""


def labels_of(table: str, columns: str = "", names: list[str] = NAMES) -> dict[str, str]:
    found = Names(names)
    return label_pictures("pets", read_table("pets", "labels.csv", table.encode(), found), found, columns)


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("id,label\n1,cat\n2,dog\n", ""),
        ("\ufeffid;label\r\n1;cat\r\n2;dog\r\n", ""),
        ("file\tbreed\n1.png\tcat\n2.png\tdog\n", ""),
        ("1.jpg,cat\n2.jpg,dog\n", ""),
        ("label,path\ncat,train/1.png\ndog,./train/2.png\n", ""),
        ('n,file_name,"class name",width\n7,1.png," cat",20\n8,2.png,dog,20\n', ""),
        ("id,a,b\n1,x,cat\n2,y,dog\n", "id,b"),
        ("1.png,x,cat\n2.png,y,dog\n", "1,3"),
        ("id,label\n1,cat\n2,dog\n1,cat\n9,emu\n3,\n", ""),
    ],
)
def test_the_columns_are_found_or_named(table: str, columns: str) -> None:
    assert labels_of(table, columns) == ONE_TWO


def test_a_name_with_dots_needs_no_suffix() -> None:
    assert labels_of("id,label\ncat.x,cat\n") == {"train/cat.x.png": "cat"}


def test_a_path_tells_pictures_of_one_name_apart() -> None:
    assert labels_of("id,label\ntest/1.png,cat\ntrain/1,dog\n") == {"test/1.png": "cat", "train/1.png": "dog"}


@pytest.mark.parametrize(
    ("table", "columns", "message"),
    [
        (
            "id,label\n7,cat\n",
            "",
            "no column of labels.csv names pictures of the source; write their names .*, or set label_columns=.*id, la",
        ),
        ("id,a,b\n1,1,0\n2,0,1\n", "", "which column of labels.csv has the classes is not clear; set .*id, a, b"),
        ("id,label\n1,cat\n", "id,breed", "labels.csv has no column 'breed'; set label_columns=PICTURE,CLASS"),
        ("id,label\n1,cat\n1.png,dog\n", "", "labels.csv gives train/1.png the classes 'cat' and 'dog'; leave one"),
        ("id,label\n1,cat\n2\n", "", "row 3 of labels.csv has 1 cells, and the first row 2; correct it"),
        (
            'label,id\ncat,1\n\ndog,"2\ncat,3\n',
            "",
            r"pets: labels\.csv: row 4 cannot be read as CSV \(unexpected end of",
        ),
        ("id,label\n1,cat\n\n2\n", "", "row 4 of labels.csv has 1 cells"),
        ("id\n1\n", "", "labels.csv has no two columns"),
        ("", "", "labels.csv has no two columns"),
    ],
)
def test_a_table_that_does_not_tell_is_refused(table: str, columns: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        labels_of(table, columns)


def test_an_ambiguous_name_is_refused() -> None:
    with pytest.raises(UserError, match=r"names '1', which may be a/1\.png or b/1\.png; give the pictures with their"):
        labels_of("id,label\n1,cat\n", names=["a/1.png", "b/1.png"])


def test_a_table_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(UserError, match=r"pets: labels\.csv is not in UTF-8; save it as CSV in UTF-8"):
        read_table("pets", "labels.csv", b"id,label\n1,caf\xe9\n", Names(NAMES))


def raw_of(data: Path, folder: Path, **settings: str) -> Raw:
    recipe = ReadingRecipe.of(**settings).text()
    download(data=str(data), version=version_of(str(data)), recipe=recipe, needs_labels=True, raw=str(folder / "raw"))
    return open_raw(folder / "raw")


@pytest.mark.parametrize(
    ("how", "name"),
    [("folder", "labels.csv"), ("zip", "labels.csv"), ("tar.gz", "labels.csv"), ("tar.gz", "labels.tab")],
)
def test_labelled_pictures_are_read_by_their_splits(tmp_path: Path, how: str, name: str) -> None:
    pictures = {f"{split}/{number}.png": picture(number) for split in ("train", "val") for number in range(4)}
    rows = [f"{name},{'dog' if '1' in name or '3' in name else 'cat'}" for name in pictures]
    table = "\n".join(["path,label", *rows]).encode()
    others = {"train/9.png": picture(9), f"about/{name}": b"no,table", "train/labels.txt": b"x"}
    raw = raw_of(packed(tmp_path, {**pictures, name: table, **others}, how), tmp_path, labels=name)
    assert (raw.classes, raw.counts) == (["cat", "dog"], {"train": 4, "val": 4})
    found = [
        (chunk.split, name, int(label), content)
        for chunk in raw.chunks(3)
        for name, label, content in zip(chunk.names, chunk.labels, chunk.encoded or [], strict=True)
    ]
    assert sorted(found) == sorted(
        (name.partition("/")[0], name, int(name[-5]) % 2, content) for name, content in pictures.items()
    )
    assert raw.document.left_out
    assert raw.document.left_out.sentences()[0] == "1 picture without a label left out: 1 in train"


def test_other_labels_are_other_data(tmp_path: Path) -> None:
    pictures = {f"{number}.png": picture(number) for number in range(4)}
    digests = set()
    for place, classes in (("a", "xyxy"), ("b", "xyxy"), ("c", "xxyy")):
        table = "".join(f"{number},{name}\n" for number, name in enumerate(classes)).encode()
        (tmp_path / place).mkdir()
        pets = packed(tmp_path / place, {**pictures, "labels.csv": table}, "folder")
        digests.add(raw_of(pets, tmp_path / place, labels="labels.csv").digest)
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": "breeds.csv"}, r"labels=breeds\.csv is not in .*pets; give one of labels\.csv"),
        ({"labels": "labels.csv"}, r"holds one class only \('cat'\)"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, settings: dict[str, str], message: str) -> None:
    pets = packed(tmp_path, {"1.png": picture(1), "2.png": picture(2), "labels.csv": b"1,cat\n2,cat\n"}, "folder")
    with pytest.raises(UserError, match=message):
        raw_of(pets, tmp_path, **settings)
    assert not list(tmp_path.glob("raw*"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": "a.csv", "data_layout": "classes"}, "data_layout=classes has no effect with labels=a.csv"),
        (
            {"labels": "a.csv", "label_columns": "a"},
            "label_columns=a is not accepted; give PICTURE,CLASS, the names of",
        ),
    ],
)
def test_parameters_that_contradict_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ReadingRecipe.of(**settings)
