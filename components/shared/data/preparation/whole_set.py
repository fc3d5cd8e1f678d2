"""The preparation of a data set that one pod holds whole.

Memory does not grow with the number of images. They are decoded once, into a buffer next to the dataset; splits are
assigned by a short row for each image; then the buffer is written to the dataset's shards, unit by unit, and the units
are joined by their rows. Pictures of more than 8 bits are decoded twice: once to measure the bounds by which they are
scaled.
"""

import shutil
import time
from pathlib import Path

import numpy as np

from components.shared.core import log
from components.shared.core.document import ValueRange
from components.shared.data.dataset import SPLIT_ROWS, Origin
from components.shared.data.decode import NARROW, decoder
from components.shared.data.layout.left_out import sentences_on
from components.shared.data.pictures.value_range import ValueSample, mixed, remarks_on, spread
from components.shared.data.preparation.assemble import assemble
from components.shared.data.preparation.decode_buffer import DecodeBuffer
from components.shared.data.preparation.decoding import Decoding, chunk_size
from components.shared.data.preparation.settings import Settings
from components.shared.data.preparation.splits import TEST, VAL, Splitter
from components.shared.data.preparation.unit import Unit, unit_size, write_assigned
from components.shared.data.raw import Raw


def prepare_whole(source: Raw, folder: Path, settings: Settings, code: str, started: float) -> None:
    """Prepare the dataset in an empty folder, by code of this digest."""
    num_classes = len(source.classes)
    scratch = folder / "scratch"
    scratch.mkdir()
    decoded, value_range = _decode_scaled(source, scratch, settings)
    units = _write_units(decoded.buffer, scratch, folder, _splitter(decoded.buffer, num_classes, settings))
    origin: Origin = {
        "raw_digest": source.digest,
        "parameters": settings.determining(),
        "code_version": code,
        "bad_images": decoded.bad_images,
        **origin_of(source, started),
    }
    if value_range and decoded.types.keys() - {NARROW}:
        origin["value_range"] = value_range
    if settings.keep != "raw":
        origin["keep"] = settings.keep
    assemble(folder, scratch / "units", units, source.classes, settings.image_size, **origin)
    shutil.rmtree(scratch)


def _splitter(buffer: DecodeBuffer, num_classes: int, settings: Settings) -> Splitter:
    shares = {VAL: settings.val_fraction, TEST: settings.test_fraction}
    return Splitter(buffer.counts(num_classes), shares, settings.seed)


def origin_of(source: Raw, started: float) -> Origin:
    """Return the fields of a dataset's document that describe this run."""
    seconds = {**source.document.seconds, "preprocess": round(time.monotonic() - started, 3)}
    origin: Origin = {"name": source.name, "source": source.source, "seconds": seconds}
    if source.document.left_out:
        origin["left_out"] = source.document.left_out
    return origin


def _decode_scaled(source: Raw, scratch: Path, settings: Settings) -> tuple[Decoding, ValueRange | None]:
    """Decode every image, and again if the bounds of wide pictures had to be measured first; return the bounds, too."""
    value_range = settings.given_range
    decoded = _decode(source, scratch, settings, value_range)
    if decoded.unscaled.count:
        value_range = _measure(decoded, len(source.classes), settings)
        decoded = _decode(source, scratch, settings, value_range)
    for line in [*sentences_on(decoded.bad_images), *filter(None, [mixed(decoded.types)])]:
        log.info(f"warning: {line}")
    return decoded, value_range


def _measure(decoded: Decoding, num_classes: int, settings: Settings) -> ValueRange:
    """Return the bounds of the wide pictures outside the test split."""
    splitter = _splitter(decoded.buffer, num_classes, settings)
    splits = [splitter.assign(rows["label"], rows["split"]) for rows in decoded.buffer.rows(SPLIT_ROWS)]
    value_range = decoded.unscaled.measure(np.concatenate(splits) != TEST)
    for line in [*remarks_on(value_range, decoded.types), "they are decoded again"]:
        log.info(line)
    return value_range


def _decode(source: Raw, scratch: Path, settings: Settings, value_range: ValueRange | None) -> Decoding:
    """Decode every image into a buffer, in the source's order."""
    size, count = settings.image_size, sum(source.counts.values())
    buffer = DecodeBuffer(scratch, size, settings.keep)
    decoded = Decoding(buffer, ValueSample(spread(count)), settings.max_bad_images)
    progress = log.Progress("decoding", count, "images")
    with decoder(size, value_range, crop=settings.keep == "jpeg") as decode_all:
        for chunk in source.chunks(chunk_size(size)):
            decoded.add(chunk, decode_all)
            progress.advance(len(chunk.labels))
    return decoded


def _write_units(buffer: DecodeBuffer, scratch: Path, folder: Path, splitter: Splitter) -> list[Unit]:
    """Write the images to the shards of their units and splits, and the rows of each unit to scratch/units."""
    (scratch / "units").mkdir()
    with open(scratch / "splits", "wb") as file:
        for rows in buffer.rows(SPLIT_ROWS):
            file.write(splitter.assign(rows["label"], rows["split"]).tobytes())
    units: list[Unit] = []
    progress = log.Progress("writing", buffer.count, "images")
    with open(scratch / "splits", "rb") as file:
        size = unit_size(buffer.size, buffer.count, buffer.keep)
        for rows, images in buffer.units(size, chunk_size(buffer.size)):
            number, splits = len(units), np.fromfile(file, np.uint8, len(rows))
            path = scratch / "units" / f"{number:09}.parquet"
            units.append(write_assigned(folder, number, rows, splits, images, path))
            progress.advance(len(rows))
    return units
