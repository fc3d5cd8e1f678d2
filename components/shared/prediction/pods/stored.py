"""Predictions in a store, where a pod that is started again goes on, and where they outlive the run.

predictions/<model>/<key>/part-00000.parquet ...   the rows, each part written once
predictions/<model>/<key>/predictions.csv, uncertain.html, drift-report.json
predictions/<model>/<key>/predictions.json          written last

The key is a digest of all that determines the rows: pictures, package, the code, and the rows of a part. Where two pods
write the same part, the first one's stays, and the second takes it over.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from components.shared.core import log
from components.shared.core.code_digest import code_digest
from components.shared.core.errors import CorruptDataError, raise_as_corrupt
from components.shared.core.files import sha256_json
from components.shared.prediction.document import CSV, MANIFEST, PredictionsDocument
from components.shared.prediction.pods.chosen import Chosen
from components.shared.prediction.table import part_path
from components.shared.storage.client import open_store
from components.shared.storage.errors import Conflict, NoSuchObject

FOLDER = "predictions"
READS = ("components.shared.prediction.rows",)
(ROWS,) = READS  # whose code determines the rows


def key_of(chosen: Chosen, data_digest: str, part_rows: int) -> str:
    """Return the key of the predictions of some data by a model."""
    return sha256_json([*chosen, data_digest, part_rows, code_digest(ROWS)])


class StoredPredictions:
    """The predictions of a key in a store."""

    def __init__(self, store: str, chosen: Chosen, key: str) -> None:
        """Make no request yet. Raises UserError if the address of the store is invalid."""
        self._store = open_store(store, os.environ)
        self._folder = f"{FOLDER}/{chosen.folder}/{key}"
        self._damaged: dict[str, str] = {}  # names of parts -> their ETags

    @property
    def uri(self) -> str:
        """Return the URI of the folder."""
        return self._store.uri(self._folder)

    def fetch_part(self, number: int, folder: Path) -> bool:
        """Copy a part to a folder; return False if it is not in the store, or is damaged."""
        path = part_path(folder, number)
        name = self._name(path.name)
        try:
            self._store.get_file(name, path)
        except NoSuchObject:
            return False
        except CorruptDataError as error:
            log.info(f"{self._store.uri(name)} is predicted again: {error.message}")
            found = self._store.stat(name)
            self._damaged[name] = found.etag if found else ""
            return False
        return True

    def keep_part(self, number: int, folder: Path) -> None:
        """Store a part of a folder; if another pod has stored it first, take over that one."""
        path = part_path(folder, number)
        name = self._name(path.name)
        etag = self._damaged.pop(name, "")
        try:
            self._store.put_bytes(path.read_bytes(), name, if_absent=not etag, if_match=etag)
        except Conflict:
            self._store.get_file(name, path)

    def restore(self, parts: Sequence[Path]) -> None:
        """Store those parts that somebody has removed meanwhile."""
        found = {entry.name: entry.size for entry in self._store.list(self._folder)}
        for path in parts:
            if found.get(self._name(path.name)) != path.stat().st_size:
                self._store.put_file(path, self._name(path.name))

    def commit(self, folder: Path, document: PredictionsDocument, others: Sequence[str]) -> bool:
        """Store the `others` of the files in a folder, the table and, last, the document.

        Returns False if the store has table and document already.
        """
        before, etag = self._read()
        is_new = not before or before.parts != document.parts or not self._store.exists(self._name(CSV))
        for name in [*others, *([CSV] if is_new else [])]:
            self._store.put_file(folder / name, self._name(name))
        if is_new:
            with suppress(Conflict):  # another run has predicted the same at the same time
                self._store.put_bytes(document.to_json(), self._name(MANIFEST), if_absent=not etag, if_match=etag)
        return is_new

    def _read(self) -> tuple[PredictionsDocument | None, str]:
        """Return the document, None if there is none or it is damaged, and its ETag."""
        try:
            content, etag = self._store.get_bytes(self._name(MANIFEST))
        except NoSuchObject:
            return None, ""
        try:
            with raise_as_corrupt():
                return PredictionsDocument.parse(content, self._store.uri(self._name(MANIFEST))), etag
        except CorruptDataError as error:
            log.info(f"it is written again: {error}")
            return None, etag

    def _name(self, name: str) -> str:
        return f"{self._folder}/{name}"
