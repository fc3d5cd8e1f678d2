"""Parquet files, read row by row in bounded memory."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.shared.core.errors import UserError

BUFFER_BYTES = 2**20  # so that no column of a row group is in memory as a whole


@contextmanager
def opened_parquet(path: Path, named: str) -> Iterator[pq.ParquetFile]:
    """Open a file. Raises UserError, with the name that people know, if it cannot be read, also in the block."""
    try:
        with pq.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False) as file:
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


def described(schema: pa.Schema) -> str:
    """Return the columns of a file in words: `image (binary), label (int64)`."""
    return ", ".join(f"{field.name} ({_type_name(field.type)})" for field in schema) or "none"


def _type_name(kind: pa.DataType) -> str:
    return "struct" if pa.types.is_struct(kind) else str(kind)[:40]


def _broken(named: str, error: Exception) -> UserError:
    reason = str(error).partition("\n")[0][:200]
    return UserError(f"{named} cannot be read as Parquet ({reason})", "replace it with an intact copy")
