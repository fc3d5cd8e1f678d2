"""Step preprocess: raw files -> a prepared dataset: images decoded, of one size, split, without copies across splits.

Memory does not grow with the number of images. They are decoded once, into a buffer next to the dataset; splits are
assigned by a short row for each image; then the buffer is written to the dataset's shards, unit by unit, and the units
are joined by their rows. Pictures of more than 8 bits are decoded twice: once to measure the bounds by which they are
scaled. With a store, a dataset that an earlier run prepared from the same data, by the same settings and code, is
reused.
"""

import shutil
import time
from pathlib import Path

import numpy as np

from components.shared.core import log
from components.shared.core.code_digest import code_digest
from components.shared.core.document import ValueRange
from components.shared.core.errors import UserError
from components.shared.core.files import new_folder
from components.shared.core.step import step
from components.shared.data.dataset import Origin
from components.shared.data.decode import NARROW, decoder
from components.shared.data.layout.left_out import check_left_out, sentences_on
from components.shared.data.pictures.value_range import ValueSample, mixed, remarks_on, spread
from components.shared.data.preparation.assemble import assemble
from components.shared.data.preparation.decode_buffer import DecodeBuffer
from components.shared.data.preparation.decoding import Decoding, chunk_size
from components.shared.data.preparation.splits import TEST, VAL, Splitter
from components.shared.data.preparation.unit import SPLIT_ROWS, Unit, unit_size, write_assigned
from components.shared.data.raw import Raw, open_raw
from components.shared.parameters.preparation import PreprocessRecipe


@step
def preprocess(*, raw: str, recipe: str, prepared_by: str, dataset: str) -> None:
    """Turn the raw artifact in folder `raw` into a prepared dataset in folder `dataset`.

    With a store, a dataset of more than `handover_mib` MiB is stored there, and the folder only refers to it;
    `prepared_by` is the run that stored it, and the present one if it is not there. Raises
    UserError if `recipe` is invalid, there are fewer than two classes, a split has no image of a class, more than
    `max_bad_images` pictures are bad, or more than `max_left_out` of all pictures are of kinds that nothing can read.
    """
    started = time.monotonic()
    parameters = PreprocessRecipe.read(recipe)
    source = open_raw(raw)
    if len(source.classes) < 2:
        raise UserError(
            f"{source.name} has too few classes ({source.classes})", "give a data set of two or more classes"
        )
    check_left_out(source.source, source.document.left_out, parameters.max_left_out)
    with new_folder(dataset) as folder:
        if not parameters.store:
            _prepare(source, folder, parameters, started)
            return
        # 0.1 s, most of it the S3 client
        from components.shared.data.dataset_store import DatasetRecipe, StoredDataset
        from components.shared.data.prepared_index import PreparedData

        code = code_digest(__name__)
        determining = DatasetRecipe(source.digest, parameters.determining(), code)
        stored = StoredDataset(parameters.store, determining, parameters.handover_mib)
        if not stored.fetch(folder):
            _prepare(source, folder, parameters, started)
            stored.upload(folder)
        is_remote = stored.finalize(folder, **_origin(source, started))
        index = PreparedData(parameters.store, source.source, source.document.version, parameters.values(), code)
        index.record(determining.digest, is_remote, prepared_by)


def _prepare(source: Raw, folder: Path, parameters: PreprocessRecipe, started: float) -> None:
    """Prepare the dataset in the folder."""
    num_classes = len(source.classes)
    scratch = folder / "scratch"
    scratch.mkdir()
    decoded, value_range = _decode_scaled(source, scratch, parameters)
    units = _write_units(decoded.buffer, scratch, folder, _splitter(decoded.buffer, num_classes, parameters))
    origin: Origin = {
        "raw_digest": source.digest,
        "parameters": parameters.determining(),
        "code_version": code_digest(__name__),
        "bad_images": decoded.bad_images,
        **_origin(source, started),
    }
    if value_range and decoded.types.keys() - {NARROW}:
        origin["value_range"] = value_range
    assemble(folder, scratch / "units", units, source.classes, parameters.image_size, **origin)
    shutil.rmtree(scratch)


def _splitter(buffer: DecodeBuffer, num_classes: int, parameters: PreprocessRecipe) -> Splitter:
    shares = {VAL: parameters.val_fraction, TEST: parameters.test_fraction}
    return Splitter(buffer.counts(num_classes), shares, parameters.seed)


def _origin(source: Raw, started: float) -> Origin:
    """Return the fields of a dataset's document that describe this run."""
    seconds = {**source.document.seconds, "preprocess": round(time.monotonic() - started, 3)}
    origin: Origin = {"name": source.name, "source": source.source, "seconds": seconds}
    if source.document.left_out:
        origin["left_out"] = source.document.left_out
    return origin


def _decode_scaled(source: Raw, scratch: Path, parameters: PreprocessRecipe) -> tuple[Decoding, ValueRange | None]:
    """Decode every image, and again if the bounds of wide pictures had to be measured first; return the bounds, too."""
    value_range = parameters.given_range
    decoded = _decode(source, scratch, parameters, value_range)
    if decoded.unscaled.count:
        value_range = _measure(decoded, len(source.classes), parameters)
        decoded = _decode(source, scratch, parameters, value_range)
    for line in [*sentences_on(decoded.bad_images), *filter(None, [mixed(decoded.types)])]:
        log.info(f"warning: {line}")
    return decoded, value_range


def _measure(decoded: Decoding, num_classes: int, parameters: PreprocessRecipe) -> ValueRange:
    """Return the bounds of the wide pictures outside the test split."""
    splitter = _splitter(decoded.buffer, num_classes, parameters)
    splits = [splitter.assign(rows["label"], rows["split"]) for rows in decoded.buffer.rows(SPLIT_ROWS)]
    value_range = decoded.unscaled.measure(np.concatenate(splits) != TEST)
    for line in [*remarks_on(value_range, decoded.types), "they are decoded again"]:
        log.info(line)
    return value_range


def _decode(source: Raw, scratch: Path, parameters: PreprocessRecipe, value_range: ValueRange | None) -> Decoding:
    """Decode every image into a buffer, in the source's order."""
    size, count = parameters.image_size, sum(source.counts.values())
    decoded = Decoding(DecodeBuffer(scratch, size), ValueSample(spread(count)), parameters.max_bad_images)
    progress = log.Progress("decoding", count, "images")
    with decoder(size, value_range) as decode_all:
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
        for rows, images in buffer.units(unit_size(buffer.size, buffer.count), chunk_size(buffer.size)):
            number, splits = len(units), np.fromfile(file, np.uint8, len(rows))
            path = scratch / "units" / f"{number:09}.parquet"
            units.append(write_assigned(folder, number, rows, splits, images, path))
            progress.advance(len(rows))
    return units
