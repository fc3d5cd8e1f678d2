"""Prepared datasets in the store, so that what one run has decoded is decoded by no other.

datasets/<recipe>/dataset.json    a dataset's document, written last; the recipe is a digest of what determines it
datasets/<recipe>/samples.png
datasets/shards/<sha256>.npy      the shards of all datasets
"""

import os
from contextlib import suppress
from pathlib import Path

from components.shared.core import log
from components.shared.core.errors import CorruptDataError, UserError, raise_as_corrupt
from components.shared.core.files import Document, parse_json, sha256_json
from components.shared.core.schema import is_sha256
from components.shared.data.dataset import FORMAT, SPLITS, Dataset, check_document, open_dataset, write_document
from components.shared.storage.client import MAX_BYTES, Store, open_store
from components.shared.storage.errors import Conflict, NoSuchObject

SHARDS = "datasets/shards"
DOCUMENT, SAMPLES = "dataset.json", "samples.png"


class PreparedDataset:
    """The dataset in a store that a recipe gives: the fields of its document that determine all its content."""

    def __init__(self, store: str, recipe: Document, handover_mib: int) -> None:
        """Make no request yet; a dataset of more than `handover_mib` MiB leaves its shards in the store."""
        self._store = open_store(store, os.environ)
        self._recipe = recipe
        self._place = f"datasets/{sha256_json(recipe)}"
        self._handover_bytes = handover_mib * 2**20
        self._is_damaged = False

    def fetch(self, folder: Path) -> bool:
        """Bring the dataset into an empty folder; False where it is not in the store, or damaged, which is told.

        Its document is written anew, unchanged, so that its age is the time since it was last used.
        """
        place = self._store.uri(self._place)
        try:
            document = _read_document(self._store, self._name(DOCUMENT))
            if not document:
                return False
            self._fetch(folder, document)
        except (CorruptDataError, NoSuchObject) as error:
            log.info(f"the dataset in {place} is damaged and prepared anew: {error}")
            self._is_damaged = True
            for path in folder.iterdir():
                path.unlink()
            return False
        self._store.put_bytes((folder / DOCUMENT).read_bytes(), self._name(DOCUMENT))
        log.info(f"nothing to decode: the dataset in {place} was prepared before")
        return True

    def keep(self, folder: Path) -> None:
        """Send the dataset in a folder to the store, the document last; shards that are there already are not sent.

        Of those only the size is looked at: one that is damaged is found by the first who reads it, in `fetch` or by
        components/shared/data/shards.py.
        """
        data = open_dataset(folder)
        for entry in data.files():
            name = _shard_name(entry)
            found = None if self._is_damaged else self._store.stat(name)
            if not found or found.size != entry["bytes"]:
                self._store.put_file(folder / entry["path"], name, entry["sha256"])
        self._store.put_file(folder / SAMPLES, self._name(SAMPLES), data.document["samples_sha256"])
        with suppress(Conflict):  # with another preparation, of the same content
            content = (folder / DOCUMENT).read_bytes()
            self._store.put_bytes(content, self._name(DOCUMENT), if_absent=not self._is_damaged)
        log.info(f"kept as {self._store.uri(self._place)}")

    def hand_over(self, folder: Path, **facts: object) -> None:
        """Leave in the folder what the next steps need, its document with the fields `facts`."""
        data = open_dataset(folder)
        if self._is_large(data):
            facts["shards"] = self._store.uri(SHARDS)
            for entry in data.files():
                (folder / entry["path"]).unlink(missing_ok=True)
        write_document(folder, {**data.document, **facts})

    def _name(self, file: str) -> str:
        return f"{self._place}/{file}"

    def _is_large(self, data: Dataset) -> bool:
        size = sum(int(entry["bytes"]) for entry in data.files())
        return size > self._handover_bytes

    def _fetch(self, folder: Path, document: Document) -> None:
        """Read and check every byte, also of shards that stay in the store; CorruptDataError or NoSuchObject."""
        if any(document.get(name) != value for name, value in self._recipe.items()):
            raise CorruptDataError(f"{DOCUMENT} is of another recipe")
        data = Dataset(folder, document)
        if self._is_large(data):
            data = Dataset(folder, {**document, "shards": self._store.uri(SHARDS)})
        else:
            for entry in data.files():
                self._store.get_file(_shard_name(entry), folder / entry["path"], entry["sha256"])
        for split in SPLITS:
            for _ in data.shards(split):
                pass
        self._store.get_file(self._name(SAMPLES), folder / SAMPLES, document["samples_sha256"])
        write_document(folder, document)


def read_recipe(store: Store, recipe: str) -> tuple[str, set[str]]:
    """The digest of the dataset that a recipe gave, and its shards' names in the store; UserError where it is none."""
    document = _read_document(store, f"datasets/{recipe}/{DOCUMENT}")
    if not document:
        raise NoSuchObject(f"{store.uri(f'datasets/{recipe}')} has no {DOCUMENT}; it was not prepared to the end")
    data = Dataset(Path(recipe), document)
    return data.digest, {_shard_name(entry) for entry in data.files()}


def open_kept(uri: str, folder: Path) -> Dataset:
    """The dataset at s3://.../datasets/<recipe>: its document comes to the folder, its shards are read from the store.

    UserError where there is none.
    """
    place, _, recipe = uri.rpartition("/datasets/")
    if not place or "/" in recipe:
        raise UserError(f"dataset={uri} is no prepared dataset; give s3://bucket/prefix/datasets/<recipe>")
    store = open_store(place, os.environ)
    document = _read_document(store, f"datasets/{recipe}/{DOCUMENT}")
    if not document:
        raise NoSuchObject(f"{uri} has no {DOCUMENT}; step preprocess of a run with a store makes it, and says where")
    write_document(folder, {**document, "shards": store.uri(SHARDS)})
    return open_dataset(folder)


def _shard_name(entry: Document) -> str:
    return f"{SHARDS}/{entry['sha256']}.npy"


def _read_document(store: Store, name: str) -> Document | None:
    """Return the document, None if it does not exist. Raises CorruptDataError if it describes no stored dataset."""
    uri, found = store.uri(name), store.stat(name)
    if not found:
        return None
    if found.size > MAX_BYTES:
        raise CorruptDataError(f"{uri} has {found.size:,} bytes, and {MAX_BYTES:,} are allowed")
    content, _ = store.get_bytes(name)
    with raise_as_corrupt():
        document = parse_json(content, FORMAT, uri)
        check_document(document, uri)
    if "shards" in document or not is_sha256(document.get("samples_sha256")):
        raise CorruptDataError(f"{uri} is of a dataset that lies elsewhere")
    return document
