"""The shares of the pods that predict side by side: which parts of the table each makes, and the artifact it leaves.

A share is whole parts in a row, so that the shares' parts together are a table. Where the pictures make fewer parts
than there are pods, parts are smaller.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from components.shared.core.document import Count, Document, Items, Number, Sha256, Size
from components.shared.core.errors import UserError
from components.shared.core.npy import read_npy, write_npy
from components.shared.data.dataset import Images
from components.shared.evaluation.exported_model import PackageDocument
from components.shared.prediction.pods.chosen import PACKAGE
from components.shared.prediction.table import part_path, part_rows

DOCUMENT, PICTURES = "share.json", "uncertain.npy"
AGAIN = "run it again"


class Share(NamedTuple):
    """The numbers of the parts that a pod makes, `end` is None for all that follow, and the rows of each."""

    first: int
    end: int | None
    part_rows: int


class ShareDocument(Document):
    """`share.json`, written last: the parts in the folder, and of what they are."""

    FORMAT = "torch2kubeflow/share"
    REMEDY = "predict again"

    model: str
    data_digest: Sha256
    part_rows: Size
    first: Count  # the number of the first part
    parts: Count
    is_last: bool  # whether no part follows
    resumed: Count  # rows that an earlier run had predicted
    predicted: Count  # rows of this one
    seconds: dict[str, Number]  # in all, and by the program
    uncertain: Items[Count]  # the numbers of the rows of uncertain.npy


def share_of(count: int, batch: int, pod: int, pods: int) -> Share:
    """Return the share of a pod of so many pictures, which are predicted in batches."""
    batches = -(-count // batch)
    rows = min(part_rows(batch), max(1, -(-batches // pods)) * batch)
    parts = -(-count // rows)
    first, end = (parts * number // pods for number in (pod, pod + 1))
    return Share(first, None if pod == pods - 1 else end, rows)


def write_pictures(folder: Path, images: dict[int, Images], package: PackageDocument) -> list[int]:
    """Write the pictures of some rows (uint8, C x H x W); return the numbers of the rows, in their order."""
    numbers = sorted(images)
    none = np.zeros((0, *package.input.sizes), np.uint8)
    write_npy(folder / PICTURES, np.stack([images[number] for number in numbers]) if numbers else none)
    return numbers


class ReadShare(NamedTuple):
    """A share that a pod has left in a folder."""

    folder: Path
    document: ShareDocument

    @property
    def parts(self) -> list[Path]:
        """Return the paths of the parts, in order."""
        first = self.document.first
        return [part_path(self.folder, number) for number in range(first, first + self.document.parts)]

    @property
    def package(self) -> PackageDocument:
        """Return the document of the package that has predicted."""
        return PackageDocument.read(self.folder / PACKAGE)

    def pictures(self) -> Iterator[tuple[int, Images]]:
        """Yield the pictures of the least certain rows, each with the number of its row."""
        numbers = self.document.uncertain
        images = read_npy(self.folder / PICTURES, (len(numbers), *self.package.input.sizes), np.uint8)
        yield from zip(numbers, images, strict=True)


def read_shares(folders: Sequence[str | Path]) -> list[ReadShare]:
    """Return the shares of a table, in order. Raises UserError if they are not all shares of one."""
    found = [ReadShare(Path(folder), ShareDocument.read(Path(folder) / DOCUMENT)) for folder in folders]
    shares = sorted(found, key=lambda share: (share.document.first, share.document.is_last))
    number = 0
    for share in shares:
        document = share.document
        if document.parts and document.first != number:
            raise UserError(f"{share.folder} begins with part {document.first}, and part {number} is missing", AGAIN)
        if _table(document) != _table(shares[0].document):
            raise UserError(f"{share.folder} and {shares[0].folder} are not of one table", AGAIN)
        number += document.parts
    if not shares[-1].document.is_last:
        raise UserError(f"no share follows {shares[-1].folder}, which is not the last", AGAIN)
    return shares


def _table(document: ShareDocument) -> tuple[str, str, int]:
    return document.model, document.data_digest, document.part_rows
