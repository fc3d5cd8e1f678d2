"""Small inputs as people have them, from the archive to the prepared data set."""

from pathlib import Path

import pytest

from components.download import download
from components.preprocess import preprocess
from components.shared.core.errors import UserError
from components.shared.data.dataset import Dataset, open_dataset
from components.shared.data.raw import open_raw
from components.shared.parameters.preparation import PreprocessRecipe, ReadingRecipe
from tests.data.versions import version_of
from tests.sample_files import packed, picture

INPUTS = Path(__file__).parents[1] / "inputs"


def prepared(data: Path, folder: Path, **settings: object) -> Dataset:
    recipe = PreprocessRecipe.of(**settings)
    reading = ReadingRecipe.taken_from(recipe.values()).text()
    download(data=str(data), version=version_of(str(data)), recipe=reading, needs_labels=True, raw=str(folder / "raw"))
    preprocess(raw=str(folder / "raw"), recipe=recipe.text(), prepared_by="", dataset=str(folder / "dataset"))
    return open_dataset(folder / "dataset")


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("split-names-long", {"train": 28, "val": 12, "test": 12}),
        ("split-names-set", {"train": 26, "val": 2, "test": 12}),
        ("split-names-seg", {"train": 26, "val": 2, "test": 12}),
    ],
)
def test_splits_of_unusual_names_are_splits(tmp_path: Path, name: str, counts: dict[str, int]) -> None:
    data = prepared(INPUTS / f"{name}.zip", tmp_path)
    assert (data.classes, data.counts) == (["cat", "dog"], counts)


@pytest.mark.parametrize(
    ("name", "classes", "pictures", "tested"),
    [
        ("backslashes", ["cat", "dog"], 28, 4),
        ("jfif", ["cat", "dog"], 48, 8),
        ("nfc-nfd", ["a", "\N{LATIN SMALL LETTER E WITH ACUTE}"], 40, 12),
        ("png-metadata", ["cat", "dog"], 29, 4),
        ("synology", ["cat", "dog"], 28, 4),
        ("utf8-unflagged", ["狗", "猫"], 28, 4),
    ],
)
def test_archives_as_people_have_them_are_read(
    tmp_path: Path, name: str, classes: list[str], pictures: int, tested: int
) -> None:
    data = prepared(INPUTS / f"{name}.zip", tmp_path)
    assert (data.classes, sum(data.counts.values()), data.counts["test"]) == (classes, pictures, tested)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "not-an-archive.zip",
            r"is a web page, not an archive: it begins with '<!DOCTYPE .*'Virus scan warning'; open it",
        ),
        ("tail.tar.bz2", "goes on for more than 8,388,608 bytes after its end; pack it again"),  # 600 MiB of zeros
    ],
)
def test_what_is_no_archive_is_refused_in_one_line(tmp_path: Path, name: str, line: str) -> None:
    with pytest.raises(UserError, match=line) as refused:
        prepared(INPUTS / name, tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("how", ["folder", "zip", "tar.gz"])
def test_pictures_without_labels_are_left_out(tmp_path: Path, how: str) -> None:
    names = [f"train/{kind}.{number}.png" for kind in ("cat", "dog") for number in range(9)]
    files = {name: picture(number) for number, name in enumerate([*names, "test1/1.png", "test1/2.png"])}
    data = prepared(packed(tmp_path, files, how), tmp_path)
    assert (data.classes, sum(data.counts.values())) == (["cat", "dog"], 18)
    left_out = data.document.left_out
    assert left_out and left_out.taken == 18
    assert left_out.sentences() == ["2 pictures without a label left out: 2 in test1"]


def test_kaggles_table_of_labels_is_offered_and_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"pictures in train, outside a class; set labels=labels\.csv if that file"):
        prepared(INPUTS / "kaggle-flat-csv.zip", tmp_path)
    data = prepared(INPUTS / "kaggle-flat-csv.zip", tmp_path, labels="labels.csv")
    assert (data.classes, sum(data.counts.values())) == (["cat", "dog"], 28)
    assert data.document.left_out
    assert data.document.left_out.sentences() == [
        "6 pictures without a label left out: 6 in test",
        "1 file beside the pictures left out: 1 .csv",
    ]
    assert "labels.csv: 28 pictures have labels, by the columns 'id' for the pictures and" in capsys.readouterr().out


def test_the_layout_that_was_set_is_in_the_document(tmp_path: Path) -> None:
    names = [f"{place}/{kind}/{number}.png" for place in ("in", "out") for kind in "ab" for number in range(5)]
    pets = packed(tmp_path, {name: picture(number) for number, name in enumerate(names)}, "folder")
    with pytest.raises(UserError, match="may be read in two ways"):
        prepared(pets, tmp_path)
    found = {layout: prepared(pets, tmp_path / layout, data_layout=layout) for layout in ("classes", "groups")}
    assert {layout: data.classes for layout, data in found.items()} == {"classes": ["in", "out"], "groups": ["a", "b"]}
    parameters = found["groups"].document.parameters
    assert parameters and parameters["data_layout"] == "groups", "for `verify`, which reads the source again"
    assert open_raw(tmp_path / "groups" / "raw").document.layout


def test_a_layout_for_data_without_pictures_is_refused(tmp_path: Path) -> None:
    recipe = ReadingRecipe.of(data_layout="classes").text()
    with pytest.raises(UserError, match="data_layout=classes has no effect: data=digits has no picture files; leave"):
        download(
            data="digits", version=version_of("digits"), recipe=recipe, needs_labels=True, raw=str(tmp_path / "raw")
        )
