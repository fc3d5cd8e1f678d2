"""The classes of samples: listed by the source, or found in the labels as they pass by."""

import re
from collections.abc import Sequence
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from components.shared.core.errors import UserError
from components.shared.data.archives.names import plain

MAX_CLASSES = 100_000
Label = int | str

WHOLE = re.compile(r"[+-]?\d{1,18}")
NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?")


def parse_label(text: str) -> Label | None:
    """Return the whole number or the name that a text is; None for another number."""
    if WHOLE.fullmatch(text):
        return int(text)
    return None if NUMBER.fullmatch(text) else text


def listed_classes(source: str, file: tuple[str, bytes] | None) -> tuple[list[str], str]:
    """Return the classes that a file (name and content) lists, one in a line, and its name; none without a file.

    Empty lines at its end are none. Raises UserError, naming `source`, if it is not in UTF-8.
    """
    if not file:
        return [], ""
    name, content = file
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{source}: {name} is not in UTF-8", "save it in UTF-8") from None
    while lines and not lines[-1].strip():
        lines.pop()
    return lines, name


class Classes:
    """Numbers for labels that are whole numbers or names."""

    def __init__(self, source: str, listed: Sequence[str] = (), list_name: str = "") -> None:
        """Take the classes that the file `list_name` of the source lists, if any, in the order of their numbers.

        Raises UserError if two of them have the same name.
        """
        self._source, self._list_name = source, list_name
        self._listed = [plain(name.strip()) for name in listed]
        self._number: dict[Label, int] = {}
        self._first: dict[type, tuple[Label, str]] = {}  # label of either type, and its picture
        for number, name in enumerate(self._listed):
            if self._number.setdefault(name, number) != number:
                self._refuse(
                    f"{list_name} gives the classes {self._number[name]} and {number} the same name {name!r}",
                    "name them differently",
                )

    def number(self, label: Label, picture: str) -> int:
        """Return the number of a label, until `finish` gives another. Raises UserError if it can be no class."""
        label = plain(label.strip()) if isinstance(label, str) else label
        if self._listed:
            return self._listed_number(label, picture)
        if isinstance(label, int) and label < 0:
            self._refuse(f"{picture} has the label {label}", "number the classes from 0 on")
        self._first.setdefault(type(label), (label, picture))
        if len(self._first) > 1:
            (number, counted), (name, named) = self._first[int], self._first[str]
            self._refuse(f"the label of {counted} is the number {number}, and that of {named} {name!r}", "use one kind")
        if label not in self._number and len(self._number) >= MAX_CLASSES:
            self._refuse(f"has more than {MAX_CLASSES:,} classes", "give labels that many pictures share")
        return self._number.setdefault(label, len(self._number))

    def finish(self) -> tuple[list[str], NDArray[np.int32]]:
        """Return the names of all classes, and the final number of each."""
        if self._listed:
            return self._listed, np.arange(len(self._listed), dtype=np.int32)
        labels = [*self._number]
        order = sorted(range(len(labels)), key=lambda number: labels[number])
        numbers = np.empty(len(labels), np.int32)
        numbers[order] = np.arange(len(labels))
        return [str(labels[number]) for number in order], numbers

    def _listed_number(self, label: Label, picture: str) -> int:
        is_listed = label in self._number if isinstance(label, str) else 0 <= label < len(self._listed)
        if not is_listed:
            names = f"{self._list_name} lists {len(self._listed):,} classes"
            self._refuse(f"{picture} has the label {label!r}, and {names}", "correct one of them")
        return self._number[label] if isinstance(label, str) else label

    def _refuse(self, problem: str, remedy: str) -> NoReturn:
        raise UserError(f"{self._source}: {problem}", remedy)
