"""The table of predictions: Parquet in whole parts, and a CSV made of them.

Each row is a picture: where it comes from, what is predicted, and by which model. A part is written aside and renamed,
and all but the last one have as many rows, so that what is there tells where to go on.

Of each part's pictures, the 2,000 with the lowest ranks have a thumbnail. A picture's rank depends on nothing but its
name and digest, so the lowest ranks of all parts are the same random sample, however the pictures are dealt to parts.
"""

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.shared.core.errors import UserError
from components.shared.core.files import new_file
from components.shared.evaluation.metrics import Probabilities
from components.shared.prediction.inputs import Batch
from components.shared.prediction.reference import MAX_VECTORS, THUMBNAIL, statistics_of, vectors_of

PART_ROWS = 16_384  # about
TOP = 3  # classes with the highest probabilities
CLASSES = ("class", *(f"class_{rank}" for rank in range(2, TOP + 1)))
PROBABILITIES = ("probability", *(f"probability_{rank}" for rank in range(2, TOP + 1)))
RANKED = tuple(name for pair in zip(CLASSES, PROBABILITIES, strict=True) for name in pair)
COLUMNS = ("source", "digest", *RANKED, "label", "error", "model", "package_digest")  # those of the CSV
THUMBNAIL_COLUMN = "thumbnail"


def schema(channels: int) -> pa.Schema:
    """Return the columns of the Parquet parts: those of the CSV, and the statistics and thumbnails of the images."""
    text, number = pa.string(), pa.float32()
    kinds = {name: number if name in PROBABILITIES else text for name in COLUMNS}
    thumbnail = (THUMBNAIL_COLUMN, pa.list_(number, THUMBNAIL**2))
    return pa.schema([*kinds.items(), *((name, number) for name in _statistics(channels)), thumbnail])


def _statistics(channels: int) -> list[str]:
    """Return the names of the columns with statistics; the confidence is the column `probability`."""
    return [name for name in statistics_of(channels) if name != "confidence"]


class Part:
    """The rows of a part that is not yet written."""

    def __init__(self, classes: Sequence[str], channels: int, model: str, package_digest: str) -> None:
        self._classes, self._channels = np.array(classes, object), channels
        self._model, self._package_digest = model, package_digest
        self._rows: dict[str, list[Any]] = {name: [] for name in schema(channels).names}

    def __len__(self) -> int:
        return len(self._rows["source"])

    def add(self, batch: Batch, probabilities: Probabilities) -> None:
        """Add the pictures of a batch; `probabilities` (N x classes) are those of its images."""
        rows, count, good = self._rows, len(batch.names), batch.good
        rows["source"] += batch.names
        rows["digest"] += batch.digests
        rows["label"] += batch.labels
        rows["error"] += batch.errors
        rows["model"] += [self._model] * count
        rows["package_digest"] += [self._package_digest] * count
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP]
        for rank, (name, share) in enumerate(zip(CLASSES, PROBABILITIES, strict=True)):
            has_rank = rank < order.shape[1]
            best = order[:, rank] if has_rank else np.zeros(0, np.int64)
            rows[name] += _spread(self._classes[best].tolist() if has_rank else [], good, count)
            values = np.take_along_axis(probabilities, best[:, None], axis=1)[:, 0].tolist() if has_rank else []
            rows[share] += _spread(values, good, count)
        names = statistics_of(self._channels)
        vectors = vectors_of(batch.images, probabilities) if good else np.zeros((0, len(names)), np.float32)
        for name, values in zip(names, vectors.T.tolist(), strict=False):
            if name in rows:
                rows[name] += _spread(values, good, count)
        rows[THUMBNAIL_COLUMN] += _spread([*vectors[:, len(names) :]], good, count)

    def write(self, path: Path) -> None:
        """Write the part."""
        self._drop_thumbnails()
        with new_file(path) as file:
            pq.write_table(pa.table(self._rows, schema(self._channels)), file, compression="zstd")

    def _drop_thumbnails(self) -> None:
        """Leave thumbnails only to the pictures with the lowest ranks."""
        rows, thumbnails = self._rows, self._rows[THUMBNAIL_COLUMN]
        good = [row for row, thumbnail in enumerate(thumbnails) if thumbnail is not None]
        if len(good) > MAX_VECTORS:
            ranks = ranks_of([rows["source"][row] for row in good], [rows["digest"][row] for row in good])
            for number in np.argsort(ranks, kind="stable")[MAX_VECTORS:].tolist():
                thumbnails[good[number]] = None


def ranks_of(sources: Sequence[str], digests: Sequence[str]) -> NDArray[np.uint64]:
    """Return a random number for each picture, always the same one for the same name and digest."""
    texts = (f"{source}\0{digest}".encode() for source, digest in zip(sources, digests, strict=True))
    ranks = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in texts)
    return np.frombuffer(ranks, "<u8")


def _spread(values: Sequence[Any], rows: Sequence[int], count: int) -> list[Any]:
    """Return a list with the values in these rows, and None in the others."""
    found: list[Any] = [None] * count
    for row, value in zip(rows, values, strict=False):
        found[row] = value
    return found


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
        text = io.TextIOWrapper(file, "utf-8", newline="")
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        for part in parts:
            for batch in read_part(part, [*COLUMNS]).to_batches(1024):
                writer.writerows(zip(*(_texts(batch[name]) for name in COLUMNS), strict=True))
        text.flush()
        text.detach()


def _texts(column: pa.Array) -> Iterator[str]:
    for value in column.to_pylist():
        yield "" if value is None else f"{value:.6g}" if isinstance(value, float) else value
