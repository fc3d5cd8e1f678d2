"""Step settle: the units of a dataset, prepared by many pods -> the dataset, whose shards stay in the store."""

import shutil
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from components.shared.core import log
from components.shared.core.code_digest import code_digest
from components.shared.core.files import new_folder
from components.shared.core.step import step
from components.shared.data.dataset import Origin
from components.shared.data.dataset_store import DatasetRecipe, StoredDataset
from components.shared.data.decode import NARROW
from components.shared.data.layout.left_out import sentences_on
from components.shared.data.parts.listing import open_listing
from components.shared.data.parts.stored_units import PREPARE, PartDocument, StoredUnits, units_key
from components.shared.data.pictures.value_range import mixed
from components.shared.data.preparation.assemble import assemble
from components.shared.data.preparation.decoding import check_bad
from components.shared.data.preparation.unit import unit_size
from components.shared.parameters.preparation import PreprocessRecipe


@step
def settle(*, listing: str, parts: Sequence[str], dataset: str) -> None:
    """Join the units of the pictures in folder `listing` to a dataset in folder `dataset`.

    Folders `parts` tell what the pods did that prepared them. Raises UserError if a unit is missing, more than
    `max_bad_images` pictures are bad, or a split has no image of a class.
    """
    pictures = open_listing(listing).document
    parameters = PreprocessRecipe.read(pictures.recipe)
    done = [PartDocument.read(Path(part) / "part.json") for part in parts]
    prepared, reused = sum(part.units for part in done), sum(part.reused for part in done)
    size = unit_size(parameters.image_size, pictures.pictures)
    log.info(f"{prepared:,} units of {size:,} pictures; {reused:,} were there")
    units = StoredUnits(parameters.store, units_key(pictures.digest, parameters.determining()))
    with new_folder(dataset) as folder:
        rows = folder / "scratch"
        rows.mkdir()
        documents = units.fetch_rows(-(-pictures.pictures // size), rows)
        bad_images = [bad for document in documents for bad in document.bad_images]
        check_bad(bad_images, parameters.max_bad_images)
        types = Counter[str]()
        for document in documents:
            types.update(document.types)
        for line in [*sentences_on(bad_images), *filter(None, [mixed(types)])]:
            log.info(f"warning: {line}")
        origin: Origin = {
            "raw_digest": pictures.digest,
            "parameters": parameters.determining(),
            "code_version": code_digest(PREPARE),
            "bad_images": bad_images,
            "name": pictures.name,
            "source": pictures.source,
            "seconds": {},
        }
        if pictures.left_out:
            origin["left_out"] = pictures.left_out
        if pictures.value_range and types.keys() - {NARROW}:
            origin["value_range"] = pictures.value_range
        assemble(
            folder,
            rows,
            [document.unit for document in documents],
            pictures.classes,
            parameters.image_size,
            partial(units.located, folder),
            **origin,
        )
        shutil.rmtree(rows)
        determining = DatasetRecipe(pictures.digest, parameters.determining(), code_digest(PREPARE))
        stored = StoredDataset(parameters.store, determining, handover_mib=0)
        stored.upload(folder)
        stored.finalize(folder, name=pictures.name, seconds={})
