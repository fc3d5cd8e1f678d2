"""The layout of pictures: which folders are splits and which are classes."""

from typing import Any

import pytest

from components.shared.core.errors import UserError
from components.shared.data.layout.file_kinds import FileKind
from components.shared.data.layout.folder_layout import Layout, find_layout
from components.shared.data.layout.survey import Survey

TWO = {"cat": 2, "dog": 3}
COUNTS = {"all": TWO}


def survey_of(folders: dict[str, int]) -> Survey:
    """The survey of folders with so many pictures; `folder/name*` stands for pictures name0.jpg, name1.jpg, ..."""
    survey = Survey()
    for folder, count in folders.items():
        if not folder.endswith("*"):
            survey.add_folder(folder)
        for number in range(count):
            start, end = (folder[:-1], ")" * ("(" in folder)) if folder.endswith("*") else (f"{folder}/", "")
            survey.add_picture(f"{start}{number}{end}.jpg")
    return survey


def splits(*tops: str, **counts: int) -> dict[str, int]:
    return {f"{top}/{kind}": 2 for top in tops for kind in ("cat", "dog")} | counts


def counted(*names: str) -> dict[str, dict[str, int]]:
    return {name: {"cat": 2, "dog": 2} for name in names}


ALL = counted("train", "val", "test")
TRAIN_TEST = counted("train", "test")
LAYOUTS: list[tuple[dict[str, int], dict[str, dict[str, int]]]] = [
    # classes
    (TWO, COUNTS),
    ({"pets/cat": 2, "pets/dog": 3}, COUNTS),
    ({"x/y/cat": 2, "x/y/dog": 3, "x": 0, "x/y": 0}, COUNTS),
    ({"cat/old": 2, "cat/new": 1, "dog": 3}, {"all": {"cat": 3, "dog": 3}}),
    ({"cat/1": 2, "cat/2": 1, "dog/3": 3, "dog/4": 1}, {"all": {"cat": 3, "dog": 4}}),
    ({"cat/images": 2, "dog/images": 3}, COUNTS),
    ({"cat/images": 1, "cat/old": 1, "dog/images": 2, "dog/dog": 1}, COUNTS),
    ({"cat/indoor": 2, "dog/indoor": 3}, COUNTS),
    ({"cat/a": 1, "cat/b": 1, "dog/a": 1, "dog/c": 1, "dog/d": 1}, COUNTS),
    ({"bus": 2, "car": 3, "tram": 1}, {"all": {"bus": 2, "car": 3, "tram": 1}}),
    ({"valid": 2, "invalid": 3}, {"all": {"invalid": 3, "valid": 2}}),
    ({"0": 2, "1": 3}, {"all": {"0": 2, "1": 3}}),
    # splits by their usual names
    ({"train/cat": 2, "train/dog": 2}, counted("train")),
    (splits("train", "test"), TRAIN_TEST),
    (splits("x/Train", "x/valid"), counted("train", "val")),
    ({"train/cat": 2, "train/dog/new": 2, "docs": 0}, counted("train")),
    (splits("training", "validation", "testing"), ALL),
    (splits("training_set", "test_set"), TRAIN_TEST),
    (splits("seg_train/seg_train", "seg_test/seg_test"), TRAIN_TEST),
    (splits("training_set/training_set", "test_set/test_set"), TRAIN_TEST),
    (splits("TRAIN", "TEST", "VAL"), ALL),
    (splits("train", "dev", "holdout"), ALL),
    (splits("Train Data", "Hold-Out", "Dev"), ALL),
    (splits("trainset", "valset", "testset"), ALL),
    (splits("asl_alphabet_train", "asl_alphabet_test"), TRAIN_TEST),
    (splits("train2017", "val2017"), counted("train", "val")),
    (splits("training", "validation", "evaluation"), ALL),
    (splits("train", "eval"), counted("train", "val")),
    (splits("data/pets/01_train", "data/pets/02_val", "data/pets/03_test"), ALL),
    (splits("train/images", "test/images"), TRAIN_TEST),
    # without labels
    (splits("train", test=5), counted("train")),
    (splits("seg_train/seg_train", "seg_test/seg_test", **{"seg_pred/seg_pred": 4}), TRAIN_TEST),
    (splits("train", "valid", **{"test/unknown": 3}), counted("train", "val")),
    # classes in the pictures' names
    ({"train/cat.*": 3, "train/dog.*": 3, "test1/*": 4}, {"train": {"cat": 3, "dog": 3}}),
    ({"images/Great_Dane_*": 2, "images/Sphynx_*": 2}, {"all": {"Great_Dane": 2, "Sphynx": 2}}),
    (
        {"train/cat (*": 2, "train/dog (*": 2, "val/cat*": 2, "val/dog*": 2},
        {"train": {"cat": 2, "dog": 2}, "val": {"cat": 2, "dog": 2}},
    ),
]


@pytest.mark.parametrize(("folders", "counts"), LAYOUTS, ids=lambda value: ",".join(value)[:50])
def test_splits_and_classes_are_found(folders: dict[str, int], counts: dict[str, dict[str, int]]) -> None:
    survey = survey_of(folders)
    layout, found = find_layout("source", survey, "auto")
    assert found == counts
    left_out = survey.result()
    assert left_out.taken + sum(files.count for files in left_out.files) == sum(folders.values())
    assert Layout.model_validate(layout.facts()) == layout


@pytest.mark.parametrize("folders", [TWO, {"pets/cat": 2, "pets/dog": 3}, splits("x/Train", "x/valid", "x/TEST")])
def test_usual_layouts_are_described_as_ever(folders: dict[str, int]) -> None:
    layout, _ = find_layout("source", survey_of(folders), "auto")
    assert layout.facts().keys() == {"root", "has_splits"}, "for the digests of raw data that were pinned"


@pytest.mark.parametrize(
    ("folders", "arrangement", "counts"),
    [
        (splits("indoor", "outdoor"), "classes", {"all": {"indoor": 4, "outdoor": 4}}),
        (splits("indoor", "outdoor"), "groups", {"all": {"cat": 4, "dog": 4}}),
        (splits("x/fold1", "x/fold2", "x/fold3"), "groups", {"all": {"cat": 6, "dog": 6}}),
        ({"train": 2, "tram": 3}, "classes", {"all": {"train": 2, "tram": 3}}),
        (splits("train", "test"), "classes", {"all": {"test": 4, "train": 4}}),
        (splits("train", "test"), "splits", TRAIN_TEST),
        (splits("train/in", "train/out"), "splits", {"train": {"in": 4, "out": 4}}),
        (splits("train", extra=3), "classes", {"all": {"extra": 3, "train": 4}}),
        ({"dev/cat": 2, "dev/dog": 3}, "classes", COUNTS),
        ({"a/cat_*": 2, "b/dog_*": 3}, "names", COUNTS),
    ],
)
def test_data_layout_decides(folders: dict[str, int], arrangement: Any, counts: dict[str, dict[str, int]]) -> None:
    assert find_layout("source", survey_of(folders), arrangement)[1] == counts


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ({}, "source holds no pictures"),
        ({"cat": 0, "dog": 0}, "source holds no pictures"),
        ({"cat": 2}, r"holds one class only \('cat'\)"),
        ({"train/cat": 2, "test/cat": 1}, r"holds one class only \('cat'\)"),
        ({"cat": 2, "dog": 0}, "no picture of class 'dog'; add some, or remove the class"),
        ({"train/cat": 2, "train/dog": 2, "test/cat": 1}, "no picture of class 'dog' in test"),
        ({"train/cat": 2, "train/dog": 2, "test/cat": 1, "test/dog": 1, "test/emu": 1}, "class 'emu' in train"),
        ({"train/cat": 2, "train/dog": 2, "test/cat": 1, "test/dog": 0}, "no picture of class 'dog' in test"),
        ({"": 1, "cat": 2, "dog": 2}, "holds pictures in its top folder, outside a class"),
        ({"pets": 1, "pets/cat": 2, "other/dog": 2, "": 3}, "holds pictures in its top folder"),
        ({"train": 1, "train/cat": 2, "train/dog": 2}, "holds pictures in train, outside a class"),
        (splits("x/train", **{"x/val": 3}), "holds pictures in x/val, outside a class"),
        (splits("train", "test", test=1), "holds pictures in test, outside a class"),
        ({"train/cat": 2, "train/dog": 2, "extra/cat": 2}, "source has extra alongside train; .* data_layout=classes"),
        ({"train/cat": 2, "train/dog": 2, "extra": 2}, "source has extra alongside train"),
        ({"cat": 2, "dog": 2, "test": 3}, "source has cat, dog alongside test"),
        ({"cat": 2, "dog": 2, "Validation": 3}, "source has cat, dog alongside Validation; .* data_layout=classes"),
        ({"cat": 2, "dog": 2, "unlabelled": 3}, "source has cat, dog alongside unlabelled"),
        ({"cat": 2, "dog": 2, "valid/cat": 2, "valid/dog": 2}, "source has cat, dog alongside valid"),
        ({"val/cat": 2, "val/dog": 2, "test/cat": 2}, "source has test, val without train"),
        ({"test/cat": 2, "test/dog": 2}, "source has test without train"),
        (splits("train", "val", "valid"), "has val and valid, which are both the val split; put them into one folder"),
        (
            splits("indoor", "outdoor"),
            r"source may be read in two ways: data_layout=classes takes the top folders for the classes \(indoor, "
            r"outdoor\), data_layout=groups their sub-folders, many of which have the same names \(cat, dog\); set one",
        ),
        (splits("part_a", "part_b", part_a=1), "may be read in two ways: .*part_a, part_b.*cat, dog"),
        (
            splits("part_a", **{"part_b/cat": 1}),
            r"in two ways: .* \(part_a, part_b\), data_layout=groups .*\(cat, dog\)",
        ),
        (splits("part_a", "part_b", **{"part_a/emu": 1}), "may be read in two ways: .*cat, dog, emu"),
        (splits("fold1", "fold2", "fold3"), "the folds fold1, fold2, fold3 of a cross-validation.* data_layout=groups"),
        (splits("fold_1/train", "fold_1/test", "fold_2/train", "fold_2/test"), "give one of them as data=, .* fold_1"),
        (
            {"cat/train": 2, "cat/test": 2, "dog/train": 2, "dog/test": 2},
            "has the splits test, train below cat, dog; turn the folders round, as in test/cat",
        ),
        (splits("train", "test") | {"": 1}, "holds pictures in its top folder, outside a class"),
        ({"train/cat.*": 3, "train/dog.*": 3, "": 1}, "holds pictures in its top folder, outside a class"),
        (splits("x/train", "x/test", x=1), "holds pictures in x, outside a class"),
        (splits("x/train") | {"y": 3}, "has the splits train below x, y; turn the folders round, as in train/x, or gi"),
        (
            splits("train/indoor", "train/outdoor", "test/indoor"),
            r"the classes are the folders in train \(indoor, outdoor\), or their sub-folders, .* \(cat, dog\); set ",
        ),
        (splits("part_a/train", "part_b/train"), "has the splits train below part_a, part_b; .* data_layout=classes"),
        (splits("part_a/train", "part_b/test"), "has the splits test, train below part_a, part_b"),
        ({"train/IMG_*": 3, "train/DSC*": 3}, "holds pictures in train, outside a class"),
        ({"train/*": 3, "test/*": 3}, "holds pictures in train, outside a class"),
        ({"train/cat.*": 3, "train/dog.*": 3, "val/*": 3}, "holds pictures in val, outside a class"),
    ],
)
def test_folders_without_a_classification_set_are_refused(folders: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_layout("source", survey_of(folders), "auto")


@pytest.mark.parametrize(
    ("folders", "arrangement", "message"),
    [
        (splits("indoor", "outdoor"), "splits", "has no splits, but indoor, outdoor; name them train, val and test"),
        ({"a/1*": 2, "a/2*": 2}, "names", "holds pictures in a, outside a class"),
        (TWO, "groups", "holds pictures in cat, outside a class"),
    ],
)
def test_a_data_layout_that_does_not_fit_is_refused(folders: dict[str, int], arrangement: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_layout("source", survey_of(folders), arrangement)


@pytest.mark.parametrize(
    ("folders", "where"), [({"train/*": 3, "test/*": 3}, "in train"), ({"*": 3}, "in its top folder")]
)
def test_a_table_beside_loose_pictures_is_named(folders: dict[str, int], where: str) -> None:
    survey = survey_of(folders)
    survey.leave_out(FileKind("sidecar", ".csv"), "labels.csv")
    remedy = "set labels=labels.csv if that file says their classes, or put them into class-name/"
    with pytest.raises(UserError, match=f"holds pictures {where}, outside a class; {remedy}"):
        find_layout("source", survey, "auto")


def test_a_class_whose_pictures_cannot_be_read_is_named() -> None:
    survey = survey_of({"cat": 2})
    survey.leave_out(FileKind("unreadable", ".heic"), "dog/1.heic")
    with pytest.raises(UserError, match=r"no picture of class 'dog' \(1 of 3 pictures left out: 1 \.heic\)"):
        find_layout("source", survey, "auto")


def test_a_picture_is_located_by_its_name() -> None:
    assert Layout(root=1, has_splits=True).locate("x/Valid/cat/old/1.png") == ("val", "cat")
    assert Layout(root=0, has_splits=False).locate("cat/1.png") == ("all", "cat")
    layout = Layout(root=0, has_splits=True, splits={"seg_test": "test"}, below={"seg_test": 1}, unlabelled=["pred"])
    assert layout.locate("seg_test/seg_test/cat/1.png") == ("test", "cat")
    assert layout.is_unlabelled("pred/1.png") and not layout.is_unlabelled("seg_test/pred/1.png")
    assert Layout(root=0, has_splits=False, in_names=True).locate("x/cat.12.jpg") == ("all", "cat")


@pytest.mark.parametrize("name", ["1.png", "emu/cat/1.png", "train/1.png"])
def test_a_picture_outside_the_layout_is_in_no_class(name: str) -> None:
    with pytest.raises(LookupError):
        Layout(root=0, has_splits=True).locate(name)
