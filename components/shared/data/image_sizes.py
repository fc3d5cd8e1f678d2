"""The sizes that pictures had in the source, as the index of a prepared dataset has them."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from components.shared.data.dataset import INDEX, SPLITS, Dataset
from components.shared.data.dataset_store import SHARDS, DatasetRecipe
from components.shared.data.prepared_index import dataset_folder
from components.shared.storage.client import open_store
from components.shared.storage.errors import NoSuchObject


def image_sizes(data: Dataset, split: str) -> NDArray[np.int32] | None:
    """Return width and height (N x 2) of the pictures of a split, in order; None if they are not known."""
    if not data.document.index_sha256:
        return None
    if not data.is_remote:
        return _read(data.folder / INDEX, split)
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / INDEX
        return _read(path, split) if _fetch(data, path) else None


def _fetch(data: Dataset, path: Path) -> bool:
    """Copy the index of a remote dataset from its store; return False if it is not there."""
    document = data.document
    if document.raw_digest is None or document.parameters is None or document.code_version is None:
        return False
    recipe = DatasetRecipe(document.raw_digest, document.parameters, document.code_version)
    store = open_store(document.shards.removesuffix(f"/{SHARDS}"), os.environ)
    try:
        store.get_file(f"{dataset_folder(recipe.digest)}/{INDEX}", path, document.index_sha256)
    except NoSuchObject:
        return False
    return True


def _read(path: Path, split: str) -> NDArray[np.int32] | None:
    import pyarrow.parquet as pq  # takes 0.1 s

    parts = []
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["split", "dropped", "width", "height"]):
            number, dropped, *size = (column.to_numpy(zero_copy_only=False) for column in batch.columns)
            stays = (number == SPLITS.index(split)) & ~dropped
            parts.append(np.stack(size, axis=1)[stays])
    sizes: NDArray[np.int32] = np.concatenate(parts) if parts else np.zeros((0, 2), np.int32)
    return sizes if len(sizes) and (sizes > 0).all() else None
