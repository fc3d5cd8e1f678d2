"""Which prepared dataset is that of a version of the data, as step resolve must know before anything is downloaded.

prepared/<key>.json    the recipe of a dataset in dataset_store.py, and the run that prepared it

By it, resolve keeps a dataset young that only cached steps refer to, and sees whether it is gone. The key is a digest
of the data's version and of what else determines what step preprocess hands on.
"""

import os

from components.shared.core import log
from components.shared.core.document import Document, JsonObject, Sha256
from components.shared.core.errors import CorruptDataError, raise_as_corrupt
from components.shared.core.files import sha256_json
from components.shared.storage.client import Store, open_store
from components.shared.storage.errors import Conflict, NoSuchObject

FOLDER = "prepared"
UNITS = "units"  # of parts/stored_units.py
SOURCES = "sources"  # of parts/staged.py
DATASETS, DOCUMENT = "datasets", "dataset.json"  # of dataset_store.py, which needs NumPy


def dataset_folder(recipe: str) -> str:
    """Return the folder of a recipe's dataset in the store."""
    return f"{DATASETS}/{recipe}"


class PreparedDocument(Document):
    """`prepared/<key>.json`: where the dataset of a version of the data is."""

    FORMAT = "torch2kubeflow/prepared"
    REMEDY = "prepare the data again"

    recipe: Sha256  # names its folder in the store
    is_remote: bool  # whether later steps read it from there, instead of getting it whole
    prepared_by: str  # the run's id


class PreparedData:
    """What step preprocess makes of a version of a data source, by its parameters and a digest of its code."""

    def __init__(self, store: str, source: str, version: str, parameters: JsonObject, code: str) -> None:
        """Open the store. Raises UserError if that fails."""
        self._store = open_store(store, os.environ)
        self._name = f"{FOLDER}/{sha256_json([source, version, parameters, code])}.json"

    def renew(self) -> str:
        """Let the dataset be young again; return the run that prepared it, or nothing if later steps would miss it."""
        found = _read(self._store, self._name)
        if not found:
            return ""
        name = _dataset(found)
        try:
            content, etag = self._store.get_bytes(name)
            self._store.put_bytes(content, name, if_match=etag)  # lest it comes back without its shards
        except (Conflict, NoSuchObject, CorruptDataError):
            return "" if found.is_remote else found.prepared_by
        return found.prepared_by

    def record(self, recipe: str, is_remote: bool, prepared_by: str) -> None:
        """Note that a run has prepared the dataset, which is in the store."""
        document = PreparedDocument(recipe=recipe, is_remote=is_remote, prepared_by=prepared_by)
        self._store.put_bytes(document.to_json(), self._name)


def leads_nowhere(store: Store, name: str) -> bool:
    """Return whether a document of the index is of a dataset that later steps would read and that is gone."""
    found = _read(store, name)
    return found is None or (found.is_remote and not store.exists(_dataset(found)))


def _read(store: Store, name: str) -> PreparedDocument | None:
    """Return a document; None if it does not exist or is damaged."""
    try:
        content, _ = store.get_bytes(name)
        with raise_as_corrupt():
            return PreparedDocument.parse(content, store.uri(name))
    except NoSuchObject:
        return None
    except CorruptDataError as error:
        log.info(f"ignored: {error}")
        return None


def _dataset(found: PreparedDocument) -> str:
    return f"{dataset_folder(found.recipe)}/{DOCUMENT}"
