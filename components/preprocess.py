"""Step preprocess: raw files -> a prepared dataset: images decoded, of one size, split, without copies across splits.

With a store, a dataset that an earlier run prepared from the same data, by the same settings and code, is reused. Of a
large source there is only a list of its pictures: they are prepared unit by unit, each of which is on the disk alone,
in the store, and a run that was stopped goes on where it was.
"""

import time
from dataclasses import replace
from pathlib import Path

from components.shared.core import log
from components.shared.core.code_digest import code_digest
from components.shared.core.errors import UserError
from components.shared.core.files import new_folder
from components.shared.core.printable import told
from components.shared.core.step import step
from components.shared.data.layout.left_out import check_left_out
from components.shared.data.parts.listing import Listing, ListingDocument, is_listing, open_listing
from components.shared.data.preparation.whole_set import origin_of, prepare_whole
from components.shared.data.raw import Raw, RawDocument, open_raw
from components.shared.data.sources.schemes import open_listed_source
from components.shared.parameters.preparation import PreprocessRecipe

READS = ("components.shared.data.sources.*",)  # modules that open_listed_source imports by name
WHOLE = prepare_whole.__module__  # whose code determines what is prepared of raw files


@step
def preprocess(*, raw: str, recipe: str, prepared_by: str, dataset: str) -> None:
    """Turn the raw artifact in folder `raw` into a prepared dataset in folder `dataset`.

    With a store, a dataset of more than `handover_mib` MiB is stored there, and the folder only refers to it, as it
    does to that of a source whose pictures are only listed; `prepared_by` is the run that stored it, and the present
    one if it is not there. Raises UserError if `recipe` is invalid, there are fewer than two classes, a split has no
    image of a class, more than `max_bad_images` pictures are bad, or more than `max_left_out` of all pictures are of
    kinds that nothing can read.
    """
    started = time.monotonic()
    parameters = PreprocessRecipe.read(recipe)
    given = open_listing(raw) if is_listing(raw) else open_raw(raw)
    _check(given.document, parameters)
    with new_folder(dataset) as folder:
        if isinstance(given, Raw) and not parameters.store:
            prepare_whole(given, folder, parameters, code_digest(WHOLE), started)
        elif isinstance(given, Raw):
            determining, is_remote = _store(given, folder, parameters, started)
            _record(given.document, parameters, determining, is_remote, prepared_by)
        else:
            determining = _prepare_listed(given, folder, parameters, started)
            _record(given.document, parameters, determining, True, prepared_by)


def _check(source: RawDocument | ListingDocument, parameters: PreprocessRecipe) -> None:
    if len(source.classes) < 2:
        raise UserError(
            f"{source.name} has too few classes ({source.classes})", "give a data set of two or more classes"
        )
    check_left_out(told(source.source), source.left_out, parameters.max_left_out)


def _store(source: Raw, folder: Path, parameters: PreprocessRecipe, started: float) -> tuple[str, bool]:
    """Prepare the dataset, unless it is in the store; return what determines it, and whether it stays there alone."""
    from components.shared.data.dataset_store import DatasetRecipe, StoredDataset  # 0.1 s, most of it the S3 client

    code = code_digest(WHOLE)
    determining = DatasetRecipe(source.digest, parameters.determining(), code)
    stored = StoredDataset(parameters.store, determining, parameters.handover_mib)
    if not stored.fetch(folder):
        prepare_whole(source, folder, parameters, code, started)
        stored.upload(folder)
    return determining.digest, stored.finalize(folder, **origin_of(source, started))


def _prepare_listed(listing: Listing, folder: Path, parameters: PreprocessRecipe, started: float) -> str:
    """Prepare the dataset of listed pictures in the store, unit by unit; return what determines it."""
    from components.shared.data.parts.listed_splits import check_splits
    from components.shared.data.parts.measure import bounds
    from components.shared.data.parts.settlement import settle_units
    from components.shared.data.parts.unit_preparation import prepare_units

    check_splits(listing, parameters)
    value_range = bounds(open_listed_source(listing.document.source), listing, parameters)
    document = listing.document.model_copy(update={"value_range": value_range})
    units, reused = prepare_units(replace(listing, document=document), parameters)
    log.info(f"units: {units:,}; already in the store: {reused:,}")

    def seconds() -> dict[str, float]:
        return {**document.seconds, "preprocess": round(time.monotonic() - started, 3)}

    return settle_units(document, parameters, folder, seconds).digest


def _record(
    source: RawDocument | ListingDocument, parameters: PreprocessRecipe, recipe: str, is_remote: bool, prepared_by: str
) -> None:
    """Note for later runs which dataset in the store is that of the source."""
    from components.shared.data.prepared_index import PreparedData

    code = code_digest(__name__)
    index = PreparedData(parameters.store, told(source.source), source.version, parameters.values(), code)
    index.record(recipe, is_remote, prepared_by)
