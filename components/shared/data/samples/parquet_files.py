"""Parquet files, read row by row in bounded memory."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.shared.core.errors import UserError
from components.shared.data.archives.kinds import ArchiveFile, opened
from components.shared.data.archives.member import Member, Row
from components.shared.data.archives.ranged import RangedFile

AT_ONCE = 4096  # rows in memory without their pictures
ROWS = 16  # with them
BUFFER_BYTES = 2**20  # so that no column of a row group is in memory as a whole


@contextmanager
def opened_parquet(path: ArchiveFile, named: str) -> Iterator[pq.ParquetFile]:
    """Open a file. Raises UserError, with the name that people know, if it cannot be read, also in the block."""
    try:
        with pq.ParquetFile(opened(path), buffer_size=BUFFER_BYTES, pre_buffer=False) as file:
            names = file.schema_arrow.names
            if twice := [name for number, name in enumerate(names) if name in names[:number]]:
                raise UserError(f"{named} has two columns {twice[0]!r}", "name them differently")
            yield file
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise _broken(named, error) from None
    except OSError as error:  # without a number from pyarrow, of damaged pages
        if error.errno is not None:
            raise
        raise _broken(named, error) from None


def parquet_rows(file: pq.ParquetFile, columns: Sequence[str], at_once: int) -> Iterator[tuple[Any, ...]]:
    """Yield the rows as tuples of some columns, row group by row group, with `at_once` of them in memory."""
    for batch in file.iter_batches(at_once, columns=list(dict.fromkeys(columns))):
        yield from zip(*(batch.column(column).to_pylist() for column in columns), strict=True)


def places_of_rows(file: pq.ParquetFile, columns: Sequence[str], at: Member) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of two columns as `parquet_rows` does, with the place of each picture in place of its bytes.

    The bytes of the first column are read only in groups of rows in which some may lack.
    """
    picture, label = columns
    is_struct = pa.types.is_struct(file.schema_arrow.field(picture).type)
    leaf = f"{picture}.bytes" if is_struct else picture
    for group in range(file.num_row_groups):
        chunk = _chunk(file, group, leaf)
        lacks_none = (
            chunk.statistics is not None and chunk.statistics.has_null_count and not chunk.statistics.null_count
        )
        light = [f"{picture}.path"] if is_struct and _has(file, f"{picture}.path") else []
        read = [*(light if lacks_none else [picture]), label]
        size = chunk.total_uncompressed_size // max(chunk.num_values, 1)  # of the rows on average
        number = 0
        for batch in file.iter_batches(AT_ONCE if lacks_none else ROWS, row_groups=[group], columns=read):
            labels = batch.column(label).to_pylist()
            shown = batch.column(picture).to_pylist() if picture in batch.schema.names else [None] * len(labels)
            for value, marked in zip(shown, labels, strict=True):
                place = replace(at, size=size, row=Row(group, number, leaf, at.size))
                yield _placed(value, place, is_struct, lacks_none), marked
                number += 1


def _placed(value: Any, place: Member, is_struct: bool, is_there: bool) -> Any:
    """Return a picture's value with its place in place of its bytes, unless it has none."""
    if not is_struct:
        return place if is_there or value is not None else None
    found = value or {}
    return found | {"bytes": place if is_there or found.get("bytes") is not None else None}


def _chunk(file: pq.ParquetFile, group: int, leaf: str) -> Any:
    found = file.metadata.row_group(group)
    chunks = (found.column(number) for number in range(found.num_columns))
    return next(chunk for chunk in chunks if chunk.path_in_schema == leaf)


def _has(file: pq.ParquetFile, leaf: str) -> bool:
    return any(file.schema.column(number).path == leaf for number in range(len(file.schema)))


def read_rows(file: RangedFile, rows: Sequence[Row]) -> Iterator[bytes]:
    """Yield the pictures of rows that follow each other. Raises UserError if one is not there."""
    with opened_parquet(file, str(file)) as table:
        for (group, column), same in groupby(rows, lambda row: (row.group, row.column)):
            numbers, first = deque(row.row for row in same), 0
            for batch in table.iter_batches(ROWS, row_groups=[group], columns=[column]):
                while numbers and numbers[0] - first < len(batch):
                    value = batch.column(0)[numbers.popleft() - first].as_py()
                    yield value["bytes"] if isinstance(value, dict) else value
                first += len(batch)
                if not numbers:
                    break


def described(schema: pa.Schema) -> str:
    """Return the columns of a file in words: `image (binary), label (int64)`."""
    return ", ".join(f"{field.name} ({_type_name(field.type)})" for field in schema) or "none"


def _type_name(kind: pa.DataType) -> str:
    return "struct" if pa.types.is_struct(kind) else str(kind)[:40]


def _broken(named: str, error: Exception) -> UserError:
    reason = str(error).partition("\n")[0][:200]
    return UserError(f"{named} cannot be read as Parquet ({reason})", "replace it with an intact copy")
