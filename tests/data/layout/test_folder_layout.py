"""The layout of pictures: which folders are splits and which are classes."""

import pytest

from components.shared.core.errors import UserError
from components.shared.data.layout.folder_layout import Layout, find_layout
from components.shared.data.layout.left_out import LeftOut


@pytest.mark.parametrize(
    ("folders", "layout", "counts"),
    [
        ({"cat": 2, "dog": 3}, Layout(root=0, has_splits=False), {"all": {"cat": 2, "dog": 3}}),
        ({"pets/cat": 2, "pets/dog": 3}, Layout(root=1, has_splits=False), {"all": {"cat": 2, "dog": 3}}),
        (
            {"x/y/cat": 2, "x/y/dog": 3, "x": 0, "x/y": 0},
            Layout(root=2, has_splits=False),
            {"all": {"cat": 2, "dog": 3}},
        ),
        ({"cat/old": 2, "cat/new": 1, "dog": 3}, Layout(root=0, has_splits=False), {"all": {"cat": 3, "dog": 3}}),
        (
            {"train/cat": 2, "train/dog": 3, "test/cat": 1, "test/dog": 1},
            Layout(root=0, has_splits=True),
            {"train": {"cat": 2, "dog": 3}, "test": {"cat": 1, "dog": 1}},
        ),
        (
            {"x/Train/cat": 2, "x/Train/dog": 3, "x/valid/cat": 1, "x/valid/dog": 1},
            Layout(root=1, has_splits=True),
            {"train": {"cat": 2, "dog": 3}, "val": {"cat": 1, "dog": 1}},
        ),
        ({"train/cat": 2, "train/dog": 3}, Layout(root=0, has_splits=True), {"train": {"cat": 2, "dog": 3}}),
        (
            {"train/cat": 2, "train/dog/new": 3, "docs": 0},
            Layout(root=0, has_splits=True),
            {"train": {"cat": 2, "dog": 3}},
        ),
    ],
)
def test_splits_and_classes_are_found(
    folders: dict[str, int], layout: Layout, counts: dict[str, dict[str, int]]
) -> None:
    assert find_layout("source", folders, LeftOut(taken=1, files=[])) == (layout, counts)


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ({}, "source holds no pictures"),
        ({"cat": 0, "dog": 0}, "source holds no pictures"),
        ({"cat": 2}, "holds one class only \\('cat'\\)"),
        ({"train/cat": 2, "test/cat": 1}, "holds one class only \\('cat'\\)"),
        ({"cat": 2, "dog": 0}, "no picture of class 'dog'; add some, or remove the class"),
        ({"train/cat": 2, "train/dog": 2, "test/cat": 1}, "no picture of class 'dog' in test"),
        ({"train/cat": 2, "train/dog": 2, "test/cat": 1, "test/dog": 1, "test/emu": 1}, "class 'emu' in train"),
        ({"train/cat": 2, "train/dog": 2, "test/cat": 1, "test/dog": 0}, "no picture of class 'dog' in test"),
        ({"": 1, "cat": 2, "dog": 2}, "holds pictures in its top folder, outside a class"),
        ({"pets": 1, "pets/cat": 2, "other/dog": 2, "": 3}, "holds pictures in its top folder"),
        ({"train": 1, "train/cat": 2, "train/dog": 2}, "holds pictures in train, outside a class"),
        ({"train/cat": 2, "train/dog": 2, "extra/cat": 2}, "source has extra alongside train"),
        ({"val/cat": 2, "val/dog": 2, "test/cat": 2}, "source has test, val without train"),
        ({"test/cat": 2, "test/dog": 2}, "source has test without train"),
    ],
)
def test_folders_without_a_classification_set_are_refused(folders: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_layout("source", folders, LeftOut(taken=1, files=[]))


def test_a_picture_is_located_by_its_name() -> None:
    assert Layout(root=1, has_splits=True).locate("x/Valid/cat/old/1.png") == ("val", "cat")
    assert Layout(root=0, has_splits=False).locate("cat/1.png") == ("all", "cat")
