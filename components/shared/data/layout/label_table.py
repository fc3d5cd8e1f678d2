"""Labels in a table beside the pictures, as on Kaggle: a CSV whose rows name a picture and its class."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.data.archives.names import plain
from components.shared.data.layout.file_kinds import PICTURES
from components.shared.data.layout.split_names import NO_LABELS, split_of

MAX_TABLE_BYTES = 2**28
LABELS = "labels.csv"  # what download writes: the name and the class of each picture
DELIMITERS = ",;\t|"
SAMPLE = 1000  # rows from which the columns are found
# The usual names of the column with the class, the likelier first, in lower case and without separators.
LABEL_NAMES = (
    *("label", "labels", "class", "classname", "classlabel", "category", "species", "breed", "target", "diagnosis"),
    *("dx", "y", "level", "grade", "type"),
)


class Table(NamedTuple):
    """A table with labels: its name in the source, the names of its columns, and its rows."""

    name: str
    columns: list[str]
    rows: list[list[str]]


class Names:
    """The names of all pictures, found by how a table may write them."""

    def __init__(self, names: Iterable[str]) -> None:
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for name in names:
            self._by_stem[_stem(name).rpartition("/")[2]].append(name)

    def matching(self, text: str) -> list[str]:
        """Return the pictures that a path, a name or a name without its suffix may mean.

        Of several in different folders, those of the test split are none: they are without labels.
        """
        wanted = _stem(plain(text.strip()).removeprefix("./").lstrip("/"))
        found = self._by_stem.get(wanted.rpartition("/")[2], []) if wanted else []
        found = [name for name in found if f"/{_stem(name)}".endswith(f"/{wanted}")]
        labelled = [name for name in found if not any(_is_test(part) for part in name.split("/")[:-1])]
        return found if len(found) < 2 else labelled or found


def read_table(source: str, name: str, content: bytes, names: Names) -> Table:
    """Return a table; without a header its columns are called 1, 2, ... Raises UserError if it cannot be read."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{source}: {name} is not in UTF-8", "save it as CSV in UTF-8") from None
    first = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=first.count)
    rows: list[list[str]] = []
    for number, row in csv_rows(f"{source}: {name}", io.StringIO(text), delimiter):
        if rows and len(row) != len(rows[0]):
            message = f"{source}: row {number} of {name} has {len(row)} cells, and the first row {len(rows[0])}"
            raise UserError(message, "correct it")
        rows.append(row)
    if not rows or len(rows[0]) < 2:
        raise UserError(f"{source}: {name} has no two columns", "give a CSV with the pictures and their classes")
    has_header = not any(names.matching(cell) for cell in rows[0])
    columns = [cell.strip() for cell in rows[0]] if has_header else [str(n) for n in range(1, len(rows[0]) + 1)]
    return Table(name, columns, rows[has_header:])


def csv_rows(named: str, lines: Iterable[str], delimiter: str, first: int = 1) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a CSV that are not empty, with their numbers from `first` on.

    Raises UserError, with the name `named`, if one cannot be read, such as one with a quote that is not closed.
    """
    number = first
    try:
        for row in csv.reader(lines, delimiter=delimiter, strict=True):
            if row:
                yield number, row
            number += 1
    except csv.Error as error:
        message = f"{named}: row {number} cannot be read as CSV ({error})"
        raise UserError(message, "correct its quotes, or save it as CSV in UTF-8") from None


def label_pictures(source: str, table: Table, names: Names, label_columns: str) -> dict[str, str]:
    """Return the class of each picture that the table names.

    Raises UserError if the columns cannot be found, a name means several pictures, or a picture has two classes.
    """
    file, label = _columns(source, table, names, label_columns)
    labels: dict[str, str] = {}
    unknown = []
    for row in table.rows:
        found, class_name = names.matching(row[file]), plain(row[label].strip())
        if len(found) > 1:
            message = f"{source}: {table.name} names {row[file]!r}, which may be {found[0]} or {found[1]}"
            raise UserError(message, "give the pictures with their folders")
        if not found:
            unknown.append(row[file])
        elif class_name and labels.setdefault(found[0], class_name) != class_name:
            message = f"{source}: {table.name} gives {found[0]} the classes {labels[found[0]]!r} and {class_name!r}"
            raise UserError(message, "leave one of them")
    names_of_columns = f"{table.columns[file]!r} for the pictures and {table.columns[label]!r} for their classes"
    log.info(f"{table.name}: {len(labels):,} pictures have labels, by the columns {names_of_columns}")
    if unknown:
        log.info(f"{table.name}: {len(unknown):,} rows name no picture of the source, such as {unknown[0]!r}")
    return labels


def write_labels(path: Path, labels: Mapping[str, str]) -> None:
    """Write the names of pictures and their classes."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(sorted(labels.items()))


def read_labels(path: Path) -> dict[str, str]:
    """Return what `write_labels` wrote."""
    with open(path, encoding="utf-8", newline="") as file:
        return {name: class_name for name, class_name in csv.reader(file)}


def _columns(source: str, table: Table, names: Names, label_columns: str) -> tuple[int, int]:
    """Return the numbers of the columns with the pictures and with their classes."""
    remedy = f"set label_columns=PICTURE,CLASS to two of its columns: {', '.join(table.columns)}"
    if label_columns:
        given = [column.strip() for column in label_columns.split(",")]
        for column in given:
            if column not in table.columns:
                raise UserError(f"{source}: {table.name} has no column {column!r}", remedy)
        return table.columns.index(given[0]), table.columns.index(given[1])
    sample = table.rows[:SAMPLE]
    hits = [sum(bool(names.matching(row[number])) for row in sample) for number in range(len(table.columns))]
    file = hits.index(max(hits))
    if not hits[file]:
        message = f"{source}: no column of {table.name} names pictures of the source"
        raise UserError(message, f"write their names or paths as they are in the source, or {remedy}")
    others = [number for number in range(len(table.columns)) if number != file]
    label = label_column(table.columns, others)
    if label is None:
        raise UserError(f"{source}: which column of {table.name} has the classes is not clear", remedy)
    return file, label


def label_column(columns: Sequence[str], others: Sequence[int]) -> int | None:
    """Return which of the columns with the numbers `others` has the classes, by its name or as the only one."""
    return others[0] if len(others) == 1 else column_named(LABEL_NAMES, columns, others)


def column_named(names: Sequence[str], columns: Sequence[str], among: Sequence[int]) -> int | None:
    """Return the number of the column with the first of some names, in lower case and without separators."""
    plain_names = {"".join(filter(str.isalnum, columns[number].casefold())): number for number in among}
    return next((plain_names[name] for name in names if name in plain_names), None)


def _stem(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in PICTURES else name


def _is_test(folder: str) -> bool:
    return split_of(folder) in ("test", NO_LABELS)
