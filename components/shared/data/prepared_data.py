"""A prepared dataset as what a prediction reads: a folder, or an address in a store."""

import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit
from urllib.request import url2pathname

from components.shared.data.dataset import Dataset, open_dataset
from components.shared.data.prepared_index import DOCUMENT

STORED = re.compile(r"s3://.+/datasets/[0-9a-f]{64}")
_START = 4096  # bytes of a document in which its format stands


def local_path(address: str) -> Path | None:
    """Return the path of a file:// URI; None of another address."""
    return Path(url2pathname(urlsplit(address).path)) if address.startswith("file://") else None


def prepared_folder(data: str) -> Path | None:
    """Return the folder, named by a path or a file:// URI, if it is a prepared dataset."""
    folder = local_path(data) or Path(data)
    return folder if is_prepared_folder(folder) else None


def is_prepared(data: str) -> bool:
    """Return whether the parameter `data` names a prepared dataset."""
    return bool(STORED.fullmatch(data) or prepared_folder(data))


def is_prepared_folder(path: Path) -> bool:
    """Return whether a folder is a dataset that step preprocess has made."""
    document = path / DOCUMENT
    if not document.is_file():
        return False
    with open(document, "rb") as file:
        return b'"torch2kubeflow/dataset"' in file.read(_START)


def prepared_version(data: str) -> str:
    """Return the digest of a prepared dataset. Raises UserError if it is not whole."""
    with TemporaryDirectory() as scratch:
        return f"dataset:{_open(data, Path(scratch)).digest}"


def fetch_prepared(data: str, folder: Path) -> Dataset:
    """Copy a prepared dataset to an empty folder; the shards of a remote one stay in its store.

    Raises UserError if it is not whole.
    """
    found = _open(data, folder)
    if not found.is_remote:
        for name in [DOCUMENT, *(file.path for file in found.files())]:
            shutil.copyfile(found.folder / name, folder / name)
    elif found.folder != folder:
        shutil.copyfile(found.folder / DOCUMENT, folder / DOCUMENT)
    return open_dataset(folder)


def _open(data: str, folder: Path) -> Dataset:
    if local := prepared_folder(data):
        return open_dataset(local)
    from components.shared.data.dataset_store import open_stored_dataset  # 0.1 s, most of it the S3 client

    return open_stored_dataset(data, folder)
