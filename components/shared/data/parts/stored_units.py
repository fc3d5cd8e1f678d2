"""The units of a dataset in the store, which pods prepare side by side, and one joins.

units/<key>/<number>.parquet    the rows of a unit
units/<key>/<number>.json       its document, written last
datasets/shards/<sha256>.npy    its shards, with those of all datasets

The key is a digest of all that determines the units. A unit that is there is not prepared again.
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from components.shared.core.code_digest import code_digest
from components.shared.core.document import Count, Document, Items, JsonObject, Number, Sha256, Size
from components.shared.core.errors import CorruptDataError, UserError, raise_as_corrupt
from components.shared.core.files import sha256_file, sha256_json
from components.shared.data.dataset import Dataset, DatasetDocument, Shard
from components.shared.data.dataset_store import SHARDS
from components.shared.data.layout.left_out import BadImage
from components.shared.data.preparation.unit import Unit
from components.shared.data.prepared_index import UNITS
from components.shared.storage.client import open_store
from components.shared.storage.errors import NoSuchObject

READS = ("components.shared.data.parts.unit_preparation",)
(PREPARE,) = READS  # whose code determines the units
AGAIN = "run it again"
READERS = 16  # units that are looked up at the same time


class UnitDocument(Document):
    """`<number>.json`: a unit that is prepared."""

    FORMAT = "torch2kubeflow/unit"
    REMEDY = AGAIN

    number: Count
    channels: Size
    shards: dict[str, Shard]  # by split
    rows_sha256: Sha256
    bad_images: Items[BadImage]
    types: dict[str, Count]  # of the pictures' numbers

    @property
    def unit(self) -> Unit:
        """Return the unit."""
        return Unit(self.number, self.channels, self.shards)


class PartDocument(Document):
    """`part.json`: what a pod did."""

    FORMAT = "torch2kubeflow/part"
    REMEDY = AGAIN

    units: Count
    reused: Count  # which an earlier run had prepared
    seconds: Number = 0.0  # that it took


def units_key(listing_digest: str, determining: JsonObject) -> str:
    """Return the digest of all that determines the units of a list of pictures."""
    return sha256_json([listing_digest, determining, code_digest(PREPARE)])


class StoredUnits:
    """The units of a dataset in a store."""

    def __init__(self, store: str, key: str) -> None:
        """Open the store. Raises UserError if that fails."""
        self._store = open_store(store, os.environ)
        self._key = key

    def read(self, number: int) -> UnitDocument | None:
        """Return the document of a unit; None if it, or one of its shards, is not there whole."""
        try:
            content, _ = self._store.get_bytes(self._name(number, "json"))
            with raise_as_corrupt():
                document = UnitDocument.parse(content, self._store.uri(self._name(number, "json")))
        except (NoSuchObject, CorruptDataError):
            return None
        files = [file for shard in document.shards.values() for file in shard.files]
        found = [(self._store.stat(f"{SHARDS}/{file.sha256}.npy"), file.bytes) for file in files]
        return document if all(entry and entry.size == size for entry, size in found) else None

    def put(self, folder: Path, rows: Path, unit: Unit, bad_images: list[BadImage], types: Mapping[str, int]) -> None:
        """Store a unit: its shards, which are in a folder, its rows, and its document last."""
        for shard in unit.shards.values():
            for file in shard.files:
                self._store.put_file(folder / file.path, f"{SHARDS}/{file.sha256}.npy", file.sha256)
        document = UnitDocument(
            number=unit.number,
            channels=unit.channels,
            shards=unit.shards,
            rows_sha256=sha256_file(rows),
            bad_images=bad_images,
            types=dict(sorted(types.items())),
        )
        self._store.put_file(rows, self._name(unit.number, "parquet"), document.rows_sha256)
        self._store.put_bytes(document.to_json(), self._name(unit.number, "json"))

    def fetch_rows(self, count: int, folder: Path) -> list[UnitDocument]:
        """Copy the rows of all units to a folder; return their documents. Raises UserError if one is missing."""
        with ThreadPoolExecutor(READERS) as readers:
            return list(readers.map(partial(self._fetch_rows, count, folder), range(count)))

    def _fetch_rows(self, count: int, folder: Path, number: int) -> UnitDocument:
        document = self.read(number)
        if not document:
            raise UserError(f"unit {number} of {count} is not in {self._store.uri(UNITS)}/{self._key}", AGAIN)
        try:
            self._store.get_file(self._name(number, "parquet"), folder / f"{number:09}.parquet", document.rows_sha256)
        except (CorruptDataError, NoSuchObject) as error:
            self._store.remove(self._name(number, "json"))  # lest a later run takes the unit for whole
            raise UserError(f"unit {number} of {count} was damaged and is removed ({error.message})", AGAIN) from None
        return document

    def located(self, folder: Path, document: DatasetDocument) -> DatasetDocument:
        """Store what a folder has of a dataset's shards, and say in its document that all are in the store."""
        for file in Dataset(folder, document).files():
            if (folder / file.path).exists():  # what is left out of the shard of a unit
                self._store.put_file(folder / file.path, f"{SHARDS}/{file.sha256}.npy", file.sha256)
        return document.model_copy(update={"shards": self._store.uri(SHARDS)})

    def _name(self, number: int, suffix: str) -> str:
        return f"{UNITS}/{self._key}/{number:09}.{suffix}"
