"""Prepared datasets in the store, so that no run decodes what another one has decoded.

datasets/<recipe>/dataset.json    a dataset's document, written last; the recipe is a digest of all that determines it
datasets/<recipe>/samples.png
datasets/<recipe>/index.parquet   none of an earlier format
datasets/shards/<sha256>.npy      the shards of all datasets
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Unpack

from components.shared.core import log
from components.shared.core.document import JsonObject
from components.shared.core.errors import CorruptDataError, UserError, raise_as_corrupt
from components.shared.core.files import sha256_json
from components.shared.data.dataset import (
    AGAIN,
    INDEX,
    SAMPLES,
    SPLITS,
    Dataset,
    DatasetDocument,
    Origin,
    Shard,
    ShardFile,
    open_dataset,
    write_document,
)
from components.shared.data.prepared_index import DATASETS, DOCUMENT, dataset_folder
from components.shared.storage.client import Store, open_store
from components.shared.storage.errors import Conflict, NoSuchObject

SHARDS = f"{DATASETS}/shards"
READERS = 16  # shards that are checked at the same time
MAX_BYTES = DatasetDocument.MAX_BYTES


@dataclass(frozen=True)
class DatasetRecipe:
    """The fields of a dataset's document that determine its content."""

    raw_digest: str
    parameters: JsonObject
    code_version: str

    @property
    def digest(self) -> str:
        """Return the name of the dataset's folder."""
        return sha256_json(asdict(self))


class StoredDataset:
    """The dataset of a recipe in a store."""

    def __init__(self, store: str, recipe: DatasetRecipe, handover_mib: int) -> None:
        """Open the store; a dataset of more than `handover_mib` MiB becomes remote. Raises UserError if that fails."""
        self._store = open_store(store, os.environ)
        self._recipe = recipe
        self._folder = dataset_folder(recipe.digest)
        self._max_local_bytes = handover_mib * 2**20
        self._is_corrupt = False

    def fetch(self, folder: Path) -> bool:
        """Copy the dataset to an empty folder; return False if it is not in the store, or corrupt.

        The stored document is written again, unchanged, so that its age is the time since its last use.
        """
        uri = self._store.uri(self._folder)
        try:
            document = _read_document(self._store, self._name(DOCUMENT))
            if not document:
                return False
            self._fetch(folder, document)
        except (CorruptDataError, NoSuchObject) as error:
            log.info(f"the dataset in {uri} is corrupt and is prepared again: {error}")
            self._is_corrupt = True
            for path in folder.iterdir():
                path.unlink()
            return False
        self._store.put_bytes((folder / DOCUMENT).read_bytes(), self._name(DOCUMENT))
        log.info(f"nothing to decode: reusing the dataset in {uri}")
        return True

    def upload(self, folder: Path, *, has_shards: bool = False) -> None:
        """Store the dataset in a folder, the document last and without the shards that are already there: all, or some.

        Only the size of those is compared: reading a corrupt one fails, in `fetch` or in
        components/shared/data/shard_cache.py.
        """
        data = open_dataset(folder)
        for entry in data.files() if not has_shards else ():
            name = _shard_name(entry)
            found = None if self._is_corrupt else self._store.stat(name)
            if not found or found.size != entry.bytes:
                self._store.put_file(folder / entry.path, name, entry.sha256)
        for name, sha256 in _accompanying(data.document).items():
            self._store.put_file(folder / name, self._name(name), sha256)
        content, name = (folder / DOCUMENT).read_bytes(), self._name(DOCUMENT)
        try:
            self._store.put_bytes(content, name, if_absent=not self._is_corrupt)
        except Conflict:  # another run has stored the same content, which may have been damaged since
            try:
                _read_document(self._store, name)
            except CorruptDataError:
                self._store.put_bytes(content, name)
        log.info(f"stored as {self._store.uri(self._folder)}")

    def finalize(self, folder: Path, **origin: Unpack[Origin]) -> bool:
        """Update the fields of the document in a folder; return whether the dataset is large.

        A large one becomes remote and loses its shards and its index there.
        """
        data = open_dataset(folder)
        document = data.document.model_copy(update=dict(origin))
        is_large = self._is_large(data)
        if is_large:
            document = _remote(document, self._store)
            for name in [INDEX, *(entry.path for entry in data.files())]:
                (folder / name).unlink(missing_ok=True)
        write_document(folder, document)
        return is_large

    def _name(self, file: str) -> str:
        return f"{self._folder}/{file}"

    def _is_large(self, data: Dataset) -> bool:
        size = sum(entry.bytes for entry in data.files())
        return size > self._max_local_bytes

    def _fetch(self, folder: Path, document: DatasetDocument) -> None:
        """Read and check all but the images that stay in the store. Raises CorruptDataError or NoSuchObject."""
        if any(getattr(document, name) != value for name, value in asdict(self._recipe).items()):
            raise CorruptDataError(f"{DOCUMENT} was prepared with different settings")
        data = Dataset(folder, document)
        if self._is_large(data):
            data = Dataset(folder, _remote(document, self._store))
        else:
            for entry in data.files():
                self._store.get_file(_shard_name(entry), folder / entry.path, entry.sha256)
        shards = [shard for split in SPLITS for shard in document.splits[split].shards]
        with ThreadPoolExecutor(READERS) as readers:
            for _ in readers.map(partial(self._check, data), shards):
                pass
        for name, sha256 in _accompanying(document, is_remote=data.is_remote).items():
            self._store.get_file(self._name(name), folder / name, sha256)
        write_document(folder, document)

    def _check(self, data: Dataset, shard: Shard) -> None:
        """Raise CorruptDataError or NoSuchObject if a shard is not as the document says.

        Images in the store are not read if it has them with the digest that the client noted when it wrote them.
        """
        if data.is_remote and all(self._has(file) for file in (shard.images, shard.offsets) if file):
            data.open_labels(shard)
        else:
            data.open_shard(shard)

    def _has(self, file: ShardFile) -> bool:
        found = self._store.stat(_shard_name(file))
        return found is not None and (found.size, found.sha256) == (file.bytes, file.sha256)


def read_recipe(store: Store, recipe: str) -> tuple[str, set[str]]:
    """Return a stored dataset's digest, and the names of its shards in the store. Raises UserError if there is none."""
    document = _read_document(store, f"{dataset_folder(recipe)}/{DOCUMENT}")
    if not document:
        raise NoSuchObject(
            f"{store.uri(f'datasets/{recipe}')} has no {DOCUMENT}: its preparation did not finish", AGAIN
        )
    data = Dataset(Path(recipe), document)
    return data.digest, {_shard_name(entry) for entry in data.files()}


def open_stored_dataset(uri: str, folder: Path) -> Dataset:
    """Open the dataset at s3://.../datasets/<recipe> as a remote one, whose document is copied to the folder.

    Raises UserError if there is none.
    """
    prefix, _, recipe = uri.rpartition("/datasets/")
    if not prefix or "/" in recipe:
        raise UserError(f"dataset={uri} is not a prepared dataset", "give s3://bucket/prefix/datasets/<recipe>")
    store = open_store(prefix, os.environ)
    document = _read_document(store, f"{dataset_folder(recipe)}/{DOCUMENT}")
    if not document:
        raise NoSuchObject(
            f"{uri} has no {DOCUMENT}", "give the address that a run with a store logs when it prepares data"
        )
    write_document(folder, _remote(document, store))
    return open_dataset(folder)


def _remote(document: DatasetDocument, store: Store) -> DatasetDocument:
    return document.model_copy(update={"shards": store.uri(SHARDS)})


def _accompanying(document: DatasetDocument, is_remote: bool = False) -> dict[str, str]:
    """Return the files next to the document, with their SHA-256; the index of a remote dataset is in the store only."""
    files = {SAMPLES: document.samples_sha256, INDEX: "" if is_remote else document.index_sha256}
    return {name: sha256 for name, sha256 in files.items() if sha256}


def _shard_name(entry: ShardFile) -> str:
    return f"{SHARDS}/{entry.sha256}.npy"


def _read_document(store: Store, name: str) -> DatasetDocument | None:
    """Return the document, None if it does not exist. Raises CorruptDataError if it describes no stored dataset."""
    uri, found = store.uri(name), store.stat(name)
    if not found:
        return None
    if found.size > MAX_BYTES:
        raise CorruptDataError(f"{uri} has {found.size:,} bytes, more than {MAX_BYTES:,}", AGAIN)
    content, _ = store.get_bytes(name, MAX_BYTES)
    with raise_as_corrupt():
        document = DatasetDocument.parse(content, uri)
    if document.shards or not document.samples_sha256:
        raise CorruptDataError(f"{uri} refers to shards stored elsewhere", AGAIN)
    return document
