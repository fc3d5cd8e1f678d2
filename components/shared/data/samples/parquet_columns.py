"""Which columns of a Parquet file have the pictures and their classes, by its schema and Hugging Face's metadata."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import pyarrow as pa
from pyarrow import types

from components.shared.core.errors import UserError
from components.shared.data.layout.label_table import LABEL_NAMES, column_named
from components.shared.data.samples.parquet_files import described

GIVE = "give files with the pictures in them, or as data= a manifest itself if it is one that has their paths"


class Columns(NamedTuple):
    """The columns of a file with the pictures and with their classes, if any, and the names of these if known."""

    picture: str
    label: str
    classes: tuple[str, ...]


def holds_bytes(kind: pa.DataType) -> bool:
    """Return whether the values of a column are bytes, or a struct {bytes, path} as Hugging Face has it."""
    if types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0) and holds_bytes(kind.field("bytes").type)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def holds_text(kind: pa.DataType) -> bool:
    """Return whether the values of a column are texts."""
    is_text = types.is_string(kind) or types.is_large_string(kind)
    return bool(is_text or (types.is_dictionary(kind) and holds_text(kind.value_type)))


def holds_labels(kind: pa.DataType) -> bool:
    """Return whether the values of a column can be classes: whole numbers or names."""
    return bool(types.is_integer(kind)) or holds_text(kind)


class Schema:
    """The schema of a file, in which columns are looked for."""

    def __init__(self, named: str, schema: pa.Schema, given: Sequence[str]) -> None:
        """Take the schema of the file that people know as `named`, and the two columns that the user names, if any.

        Raises UserError if the file has no such column.
        """
        self._named, self._schema, self._given = named, schema, given
        self._remedy = f"set label_columns=PICTURE,CLASS to two of its columns: {described(schema)}"
        self._features = _features(schema)
        for column in given:
            if schema.get_field_index(column) < 0:
                self._refuse(f"has no column {column!r}", self._remedy)

    def may_hold_pictures(self) -> bool:
        """Return whether a column has bytes, or the one that the user names for the pictures has no texts."""
        if self._given:
            return not holds_text(self._schema.field(self._given[0]).type)
        return any(holds_bytes(field.type) for field in self._schema)

    def picture_columns(self) -> list[str]:
        """Return the columns that may hold the bytes of pictures."""
        found = [field.name for field in self._schema if holds_bytes(field.type)]
        images = [name for name in found if self._features.get(name, {}).get("_type") == "Image"]
        return [name for name in found if name in self._given[:1]] if self._given else images or found

    def columns(self, needs_labels: bool) -> Columns:
        """Return the columns of a file with pictures. Raises UserError if it is not clear which they are."""
        found = self.picture_columns()
        if not found:
            what = f"the column {self._given[0]!r} has no" if self._given else "no column has"
            self._refuse(f"{what} bytes of pictures; its columns are {described(self._schema)}", GIVE)
        if len(found) > 1:
            self._refuse(f"several columns have bytes: {', '.join(found)}", self._remedy)
        label = self.label_column([*found], needs_labels)
        names = self._features.get(label, {}).get("names")
        is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
        return Columns(found[0], label, tuple(names) if names and is_list else ())

    def label_column(self, others: Sequence[str], needs_labels: bool) -> str:
        """Return the column with the classes, which is none of `others`; nothing if there is none and need not be."""
        if self._given:
            kind = self._schema.field(self._given[1]).type
            if not holds_labels(kind):
                self._refuse(f"the column {self._given[1]!r} has values of type {kind}", "name one with the classes")
            return self._given[1]
        usable = [field.name for field in self._schema if holds_labels(field.type) and field.name not in others]
        listed = [name for name in usable if self._features.get(name, {}).get("_type") == "ClassLabel"]
        if len(listed) > 1:
            self._refuse(f"several columns have classes: {', '.join(listed)}", self._remedy)
        number = column_named(LABEL_NAMES, usable, range(len(usable)))
        label = listed[0] if listed else "" if number is None else usable[number]
        if needs_labels and not label:
            self._refuse("which column has the classes is not clear", self._remedy)
        return label

    def _refuse(self, problem: str, remedy: str) -> NoReturn:
        raise UserError(f"{self._named}: {problem}", remedy)


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Return what Hugging Face's metadata say about each column."""
    try:
        found = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    is_whole = isinstance(found, dict)
    return {name: facts for name, facts in found.items() if isinstance(facts, dict)} if is_whole else {}
