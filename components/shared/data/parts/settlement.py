"""The end of a preparation in units: those in the store -> the dataset, whose shards stay there."""

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from components.shared.core import log
from components.shared.core.code_digest import code_digest
from components.shared.core.printable import told
from components.shared.data.dataset import Origin
from components.shared.data.dataset_store import DatasetRecipe, StoredDataset
from components.shared.data.decode import NARROW
from components.shared.data.layout.left_out import sentences_on
from components.shared.data.parts.listing import ListingDocument
from components.shared.data.parts.stored_units import StoredUnits, UnitDocument, units_key
from components.shared.data.pictures.value_range import mixed
from components.shared.data.preparation.assemble import assemble
from components.shared.data.preparation.decoding import check_bad
from components.shared.data.preparation.settings import Settings
from components.shared.data.preparation.unit import unit_size


def settle_units(
    pictures: ListingDocument, settings: Settings, folder: Path, seconds: Callable[[], dict[str, float]]
) -> DatasetRecipe:
    """Join the units of the pictures to a dataset in an empty folder, and store it; return what determines it.

    `seconds` returns how long each step took until now, which the document in the folder says and the stored one does
    not. Raises UserError if a unit is missing, more than `max_bad_images` pictures are bad, or a split has no image of
    a class.
    """
    determining = DatasetRecipe(pictures.digest, settings.determining(), code_digest(__name__))
    units = StoredUnits(settings.store, units_key(pictures.digest, settings.determining()))
    rows = folder / "scratch"
    rows.mkdir()
    size = unit_size(settings.image_size, pictures.pictures, settings.keep)
    documents = units.fetch_rows(-(-pictures.pictures // size), rows)
    assemble(
        folder,
        rows,
        [document.unit for document in documents],
        pictures.classes,
        settings.image_size,
        partial(units.located, folder),
        **_origin(pictures, determining, documents, settings),
    )
    shutil.rmtree(rows)
    stored = StoredDataset(settings.store, determining, handover_mib=0)
    stored.upload(folder, has_shards=True)
    stored.finalize(folder, name=pictures.name, seconds=seconds())
    return determining


def _origin(
    pictures: ListingDocument, determining: DatasetRecipe, documents: Sequence[UnitDocument], settings: Settings
) -> Origin:
    """Return the fields of the dataset's document that tell where it is from; log what is wrong with pictures."""
    bad_images = [bad for document in documents for bad in document.bad_images]
    check_bad(bad_images, settings.max_bad_images)
    types = Counter[str]()
    for document in documents:
        types.update(document.types)
    for line in [*sentences_on(bad_images), *filter(None, [mixed(types)])]:
        log.info(f"warning: {line}")
    origin: Origin = {
        "raw_digest": pictures.digest,
        "parameters": determining.parameters,
        "code_version": determining.code_version,
        "bad_images": bad_images,
        "name": pictures.name,
        "source": told(pictures.source),
        "seconds": {},
    }
    if pictures.left_out:
        origin["left_out"] = pictures.left_out
    if pictures.value_range and types.keys() - {NARROW}:
        origin["value_range"] = pictures.value_range
    if settings.keep != "raw":
        origin["keep"] = settings.keep
    return origin
