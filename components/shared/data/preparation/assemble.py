"""The last act of a preparation: join the units, judge what they hold together, write the document of the dataset."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Unpack

from components.shared.core import log
from components.shared.core.files import sha256_file
from components.shared.data.contact_sheet import save_contact_sheet
from components.shared.data.dataset import SAMPLES, SPLITS, Copies, Dataset, DatasetDocument, Origin, write_document
from components.shared.data.preparation.join import Join, joined
from components.shared.data.preparation.settle import Content, document_of, settle
from components.shared.data.preparation.splits import check_classes
from components.shared.data.preparation.unit import Unit


def assemble(
    folder: Path,
    rows: Path,
    units: Sequence[Unit],
    classes: Sequence[str],
    size: int,
    located: Callable[[DatasetDocument], DatasetDocument] = lambda document: document,
    **origin: Unpack[Origin],
) -> DatasetDocument:
    """Write the document, index and contact sheet of units to a folder; folder `rows` has a Parquet file of each.

    `located` says in the document where the shards are, if not in the folder. Raises UserError if a class has no images
    in a split.
    """
    with joined(rows) as join:
        content = settle(folder, units, join.rows(), (size, size), len(classes))
        origin["duplicates"] = _copies(content, join)
    check_classes(classes, content.counts, content.found)
    document = document_of(folder, content, classes, **origin)
    save_contact_sheet(Dataset(folder, located(document)), folder / SAMPLES)
    document = document.model_copy(update={"samples_sha256": sha256_file(folder / SAMPLES)})
    return write_document(folder, document)


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
