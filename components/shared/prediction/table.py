"""The table of predictions: Parquet in whole parts, and a CSV made of them.

Each row is a picture: where it comes from, what is predicted, and by which model. A part is written aside and renamed,
and all but the last one have as many rows, so that what is there tells where to go on.

Of each part's pictures, those of a random sample have a thumbnail.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.shared.core.errors import UserError
from components.shared.core.files import new_file
from components.shared.evaluation.metrics import Probabilities
from components.shared.prediction.inputs import Batch
from components.shared.prediction.reference import THUMBNAIL, Vectors, statistics, statistics_of, thumbnails
from components.shared.prediction.sample import Rows, Sample

PART_ROWS = 16_384  # about
TOP = 3  # classes with the highest probabilities
CLASSES = ("class", *(f"class_{rank}" for rank in range(2, TOP + 1)))
PROBABILITIES = ("probability", *(f"probability_{rank}" for rank in range(2, TOP + 1)))
RANKED = tuple(name for pair in zip(CLASSES, PROBABILITIES, strict=True) for name in pair)
COLUMNS = ("source", "digest", *RANKED, "label", "error", "model", "package_digest")  # those of the CSV
THUMBNAIL_COLUMN = "thumbnail"
END = "\r\n"  # of a line of CSV


def schema(channels: int) -> pa.Schema:
    """Return the columns of the Parquet parts: those of the CSV, and the statistics and thumbnails of the images."""
    text, number = pa.string(), pa.float32()
    kinds = {name: number if name in PROBABILITIES else text for name in COLUMNS}
    thumbnail = (THUMBNAIL_COLUMN, pa.list_(number, THUMBNAIL**2))
    return pa.schema([*kinds.items(), *((name, number) for name in _statistics(channels)), thumbnail])


def _statistics(channels: int) -> list[str]:
    """Return the names of the columns with statistics; the confidence is the column `probability`."""
    return [name for name in statistics_of(channels) if name != "confidence"]


class _Found(NamedTuple):
    """What is found in some pictures, an array each."""

    good: Rows  # which of them have no error; these are the rows of the next three
    best: NDArray[np.int64]  # the numbers of the classes with the highest probabilities, N x TOP
    shares: Probabilities  # of these
    statistics: Vectors
    sampled: Rows  # which of them have a thumbnail
    thumbnails: Vectors


class Part:
    """The rows of a part that is not yet written."""

    def __init__(self, classes: Sequence[str], channels: int, model: str, package_digest: str) -> None:
        self._classes, self._channels = pa.array(classes, pa.string()), channels
        self._same = {"model": model, "package_digest": package_digest}  # in all rows
        self._texts: dict[str, list[str | None]] = {name: [] for name in ("source", "digest", "label", "error")}
        self._found: list[_Found] = []
        self._sample = Sample()

    def __len__(self) -> int:
        return len(self._texts["source"])

    def add(self, batch: Batch, probabilities: Probabilities) -> None:
        """Add the pictures of a batch; `probabilities` (N x classes) are those of its images."""
        texts: tuple[Sequence[str | None], ...] = (batch.names, batch.digests, batch.labels, batch.errors)
        for column, values in zip(self._texts.values(), texts, strict=True):
            column += values
        good = batch.good
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP]
        shares = np.take_along_axis(probabilities, best, axis=1)
        sampled = self._sample.add(batch.names, batch.digests, good)
        small = thumbnails(batch.images[sampled[good]])
        self._found.append(_Found(good, best, shares, statistics(batch.images, probabilities), sampled, small))

    def write(self, path: Path) -> None:
        """Write the part."""
        found = _Found(*map(np.concatenate, zip(*self._found, strict=True)))
        columns = {**self._texts, **{name: pa.repeat(text, len(self)) for name, text in self._same.items()}}
        columns |= {name: _spread(values, found.good) for name, values in self._columns(found)}
        in_sample = self._sample.rows()
        pixels = pa.array(found.thumbnails[in_sample[found.sampled]].ravel())
        lists = pa.FixedSizeListArray.from_arrays(pixels, THUMBNAIL**2)
        columns[THUMBNAIL_COLUMN] = _spread(lists, found.sampled & in_sample)
        with new_file(path) as file:
            pq.write_table(pa.table(columns, schema(self._channels)), file, compression="zstd")

    def _columns(self, found: _Found) -> Iterator[tuple[str, pa.Array]]:
        """Yield the columns that only rows without an error have."""
        none = pa.nulls(len(found.best))  # where there are fewer classes than ranks
        for rank, (name, share) in enumerate(zip(CLASSES, PROBABILITIES, strict=True)):
            has_rank = rank < len(self._classes)
            yield name, self._classes.take(pa.array(found.best[:, rank])) if has_rank else none
            yield share, pa.array(found.shares[:, rank]) if has_rank else none
        for name, values in zip(statistics_of(self._channels), found.statistics.T, strict=True):
            if name in _statistics(self._channels):
                yield name, pa.array(values)


def _spread(values: pa.Array, rows: Rows) -> pa.Array:
    """Return a column with the values in these rows, and nulls in the others."""
    return values.take(pa.array(np.cumsum(rows) - 1, mask=~rows))


def part_path(folder: Path, number: int) -> Path:
    """Return the path of a part."""
    return folder / f"part-{number:05}.parquet"


def part_number(path: Path) -> int:
    """Return the number in the path of a part."""
    return int(path.stem.removeprefix("part-"))


def read_part(path: Path, columns: list[str]) -> pa.Table:
    """Return the rows of a part. Raises UserError if it is damaged, or lacks a column as one of older code may."""
    try:
        if lacking := ", ".join(sorted({*columns} - {*pq.read_schema(path).names})):
            raise UserError(f"{path} lacks the columns {lacking}", "predict again, into a new folder")
        return pq.read_table(path, columns=columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is not a Parquet file ({error})", "delete it, and predict again") from None


def row_count(path: Path) -> int:
    """Return the number of rows of a part."""
    return int(pq.read_metadata(path).num_rows)


def part_rows(batch: int) -> int:
    """Return the rows of a part: whole batches, so that a run that goes on has the same ones."""
    return max(1, PART_ROWS // batch) * batch


def whole_parts(folder: Path, rows: int) -> int:
    """Return how many parts are there, from the first one on, that have all their rows."""
    number = 0
    while (path := part_path(folder, number)).exists() and len(read_part(path, ["source"])) == rows:
        number += 1
    return number


def write_csv(parts: Sequence[Path], path: Path) -> None:
    """Write all rows of the parts as CSV (UTF-8, RFC 4180), in constant memory."""
    with new_file(path) as file:
        file.write(_lines([COLUMNS]).encode())
        for part in parts:
            for batch in read_part(part, [*COLUMNS]).to_batches(1024):
                file.write(_lines([*zip(*(_texts(batch[name]) for name in COLUMNS), strict=True)]).encode())


def _texts(column: pa.Array) -> list[str]:
    if pa.types.is_floating(column.type):
        return ["" if value is None else f"{value:.6g}" for value in column.to_pylist()]
    texts: list[str] = column.fill_null("").to_pylist()
    return texts


def _lines(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as CSV. The writer takes five times as long, so it gets only rows with a text that needs quotes."""
    plain = "".join([",".join(row) + END for row in rows])
    wanted = {",": len(rows) * (len(COLUMNS) - 1), "\r": len(rows), "\n": len(rows), '"': 0}
    if all(plain.count(mark) == count for mark, count in wanted.items()):
        return plain
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=END).writerows(rows)
    return text.getvalue()
