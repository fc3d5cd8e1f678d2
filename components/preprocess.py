"""Step preprocess: raw files -> a prepared dataset: images decoded, of one size, split, without copies across splits.

Memory does not grow with the number of images. They are decoded once, into a buffer next to the dataset; splits are
assigned by a short row for each image; then the buffer is written to the dataset's shards, unit by unit, and the units
are joined by their rows. Pictures of more than 8 bits are decoded twice: once to measure the bounds by which they are
scaled. With a store, a dataset that an earlier run prepared from the same data, by the same settings and code, is
reused.
"""

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from components.shared.core import log
from components.shared.core.code_digest import code_digest
from components.shared.core.document import ValueRange
from components.shared.core.errors import UserError
from components.shared.core.files import new_folder, sha256_file
from components.shared.core.step import step
from components.shared.data.contact_sheet import save_contact_sheet
from components.shared.data.dataset import SAMPLES, SPLITS, Copies, Dataset, Images, Origin, write_document
from components.shared.data.decode import NARROW, BadPicture, Result, decoder, fit_arrays
from components.shared.data.layout.left_out import BadImage, sentences_on
from components.shared.data.pictures.value_range import PERCENTILES, Unscaled, ValueSample, little_used, mixed
from components.shared.data.preparation.decode_buffer import DecodeBuffer
from components.shared.data.preparation.join import Join, joined
from components.shared.data.preparation.rows import SUMMED, write_rows
from components.shared.data.preparation.settle import Content, document_of, settle
from components.shared.data.preparation.splits import TEST, TRAIN, VAL, Splitter
from components.shared.data.preparation.unit import SPLIT_ROWS, Unit, unit_size, write_unit
from components.shared.data.raw import Raw, open_raw
from components.shared.parameters.preparation import PreprocessRecipe, bounds

CHUNK_BYTES = 16 * 2**20  # of prepared pixels, of which there are several copies in memory


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
    _check_left_out(source, parameters.max_left_out)
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


def _check_left_out(source: Raw, allowed: float) -> None:
    """Raise UserError if more than the allowed share of the pictures is left out, because nothing can read them."""
    left_out = source.document.left_out
    if left_out and left_out.share > allowed:
        raise UserError(
            f"{source.source}: {left_out.sentences()[0]}, more than max_left_out={allowed}",
            "convert them to PNG or JPEG, or set max_left_out to the share that may be left out",
        )


@dataclass
class _Decoded:
    """What came of the pictures of a source; one without bounds to scale it is black in the buffer."""

    buffer: DecodeBuffer
    unscaled: ValueSample
    bad_images: list[BadImage] = field(default_factory=list)
    types: Counter[str] = field(default_factory=Counter)  # of their numbers

    def images_of(self, results: Sequence[Result]) -> Images:
        """Return the images of good pictures as one array; an unscaled one is noted, and black."""
        size = self.buffer.size
        good = [
            (n, result) for n, result in enumerate(results, self.buffer.count) if not isinstance(result, BadPicture)
        ]
        channels = max((len(result) for _, result in good if not isinstance(result, Unscaled)), default=1)
        stacked = np.zeros((len(good), channels, size, size), np.uint8)
        for row, (number, result) in zip(stacked, good, strict=True):
            if isinstance(result, Unscaled):
                self.unscaled.add(number, result)
            else:
                row[:] = result
        return stacked


def _prepare(source: Raw, folder: Path, parameters: PreprocessRecipe, started: float) -> None:
    """Prepare the dataset in the folder."""
    num_classes = len(source.classes)
    scratch = folder / "scratch"
    scratch.mkdir()
    decoded, value_range = _decode_scaled(source, scratch, parameters)
    units = _write_units(decoded.buffer, scratch, folder, _splitter(decoded.buffer, num_classes, parameters))
    size = parameters.image_size
    with joined(scratch / "units") as join:
        content = settle(folder, units, join.rows(), (size, size), num_classes)
        copies = _copies(content, join)
    _check_classes(source.classes, content)
    shutil.rmtree(scratch)
    origin: Origin = {
        "raw_digest": source.digest,
        "parameters": parameters.determining(),
        "code_version": code_digest(__name__),
        "duplicates": copies,
        "bad_images": decoded.bad_images,
        **_origin(source, started),
    }
    if value_range and decoded.types.keys() - {NARROW}:
        origin["value_range"] = value_range
    document = document_of(folder, content, source.classes, **origin)
    sheet = folder / SAMPLES
    save_contact_sheet(Dataset(folder, document), sheet)
    write_document(folder, document.model_copy(update={"samples_sha256": sha256_file(sheet)}))


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


def _decode_scaled(source: Raw, scratch: Path, parameters: PreprocessRecipe) -> tuple[_Decoded, ValueRange | None]:
    """Decode every image, and again if the bounds of wide pictures had to be measured first; return the bounds, too."""
    given = parameters.value_range
    value_range = ValueRange(**dict(zip(("low", "high"), bounds(given), strict=True))) if given else None
    decoded = _decode(source, scratch, parameters, value_range)
    if decoded.unscaled.count:
        value_range = _measure(decoded, len(source.classes), parameters)
        decoded = _decode(source, scratch, parameters, value_range)
    for line in [*sentences_on(decoded.bad_images), *filter(None, [mixed(decoded.types)])]:
        log.info(f"warning: {line}")
    return decoded, value_range


def _measure(decoded: _Decoded, num_classes: int, parameters: PreprocessRecipe) -> ValueRange:
    """Return the bounds of the wide pictures outside the test split."""
    splitter = _splitter(decoded.buffer, num_classes, parameters)
    splits = [splitter.assign(rows["label"], rows["split"]) for rows in decoded.buffer.rows(SPLIT_ROWS)]
    value_range = decoded.unscaled.measure(np.concatenate(splits) != TEST)
    low, high = (f"{value:,.6g}" for value in (value_range.low, value_range.high))
    log.info(
        f"pictures of more than 8 bits, decoded again: up to {low} becomes black, from {high} on white; these are the "
        f"percentiles {PERCENTILES[0]} and {PERCENTILES[1]} of the pictures outside the test split"
    )
    if warning := little_used(value_range, decoded.types):
        log.info(f"warning: {warning}")
    return value_range


def _decode(source: Raw, scratch: Path, parameters: PreprocessRecipe, value_range: ValueRange | None) -> _Decoded:
    """Decode every image into a buffer, in the source's order."""
    size, count = parameters.image_size, sum(source.counts.values())
    decoded = _Decoded(DecodeBuffer(scratch, size), ValueSample(count))
    progress = log.Progress("decoding", count, "images")
    with decoder(size, value_range) as decode_all:
        decoded.types = decode_all.types
        for chunk in source.chunks(max(1, CHUNK_BYTES // (3 * size**2))):
            is_good = np.ones(len(chunk.labels), bool)
            if chunk.images is not None:
                images = fit_arrays(chunk.images, size)
            else:
                assert chunk.encoded is not None
                results = decode_all(chunk.encoded)
                allowed = parameters.max_bad_images - len(decoded.bad_images)
                decoded.bad_images += _bad(chunk.names, results, allowed)
                images = decoded.images_of(results)
                is_good = np.array([not isinstance(result, BadPicture) for result in results])
            split = TRAIN if chunk.split == "all" else SPLITS.index(chunk.split)
            decoded.buffer.append(images, chunk.labels, split, is_good)
            progress.advance(len(chunk.labels))
    return decoded


def _bad(names: Sequence[str], results: Sequence[Result], allowed: int) -> list[BadImage]:
    found = [(name, result) for name, result in zip(names, results, strict=True) if isinstance(result, BadPicture)]
    if len(found) > allowed:
        name, reason = found[allowed]
        raise UserError(
            f"picture {name} cannot be used: {reason}",
            "repair or remove it, or set max_bad_images to the number of pictures that may be skipped",
        )
    return [BadImage(name=name, reason=str(reason)) for name, reason in found]


def _write_units(buffer: DecodeBuffer, scratch: Path, folder: Path, splitter: Splitter) -> list[Unit]:
    """Write the images to the shards of their units and splits, and the rows of each unit to scratch/units."""
    (scratch / "units").mkdir()
    with open(scratch / "splits", "wb") as file:
        for rows in buffer.rows(SPLIT_ROWS):
            file.write(splitter.assign(rows["label"], rows["split"]).tobytes())
    units: list[Unit] = []
    progress = log.Progress("writing", buffer.count, "images")
    block = max(1, CHUNK_BYTES // (3 * buffer.size**2))
    with open(scratch / "splits", "rb") as file:
        for rows, images in buffer.units(unit_size(buffer.size), block):
            splits = np.fromfile(file, np.uint8, len(rows))
            is_good = rows["channels"] > 0
            rows["split"] = splits
            good = rows[is_good]
            units.append(write_unit(folder, len(units), good, images))
            write_rows(scratch / "units" / f"{len(units):09}.parquet", [good], SUMMED)
            progress.advance(len(rows))
    return units


def _copies(content: Content, join: Join) -> Copies:
    dropped = dict(zip(SPLITS, content.dropped.tolist(), strict=True))
    log.info(f"dropped copies across splits: {dropped['train']:,} from train, {dropped['val']:,} from val")
    repeated, conflicting = join.repeated()
    return Copies(
        repeated_images=repeated,
        of_these_with_conflicting_labels=conflicting,
        copies_dropped=dropped,
        copies_kept_within_split=join.within_split(),
    )


def _check_classes(classes: Sequence[str], content: Content) -> None:
    """Raise UserError for the first class without images in a split."""
    for split, row in zip(SPLITS, content.counts, strict=True):
        for name, count, total in zip(classes, row.tolist(), content.found.tolist(), strict=True):
            if count == 0:
                raise UserError(
                    f"class {name!r} has 0 images in the {split} split, of {total:,} in all (copies in a later split "
                    "are dropped)",
                    "add pictures of it, or remove the class",
                )
