"""The pictures of the test split that a version gets wrong, from what the store holds."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.shared.core.document import Count, Part, Share
from components.shared.core.errors import CorruptDataError, UserError, raise_as_corrupt
from components.shared.data.dataset import Dataset, DatasetDocument, Images, Labels
from components.shared.data.dataset_store import SHARDS
from components.shared.data.prepared_index import DATASETS, DOCUMENT
from components.shared.registry.challenger import digest_of_test_split
from components.shared.registry.document import VersionDocument
from components.shared.registry.versions import Versions
from components.shared.storage.client import Store
from components.shared.storage.errors import NoSuchObject, Unreadable

SHOWN = 60  # pictures of a version
DOCUMENTS = re.compile(rf"{DATASETS}/[0-9a-f]{{64}}/{re.escape(DOCUMENT)}")
LOST = (CorruptDataError, NoSuchObject, Unreadable)  # what is raised of objects that are gone or damaged


class Mistake(Part):
    """A picture of the test split (its number, from 0) of which the most probable class is the wrong one."""

    number: Count
    truth: Count
    predicted: Count
    probability: Share


class TestSplits:
    """The test splits in a store, each of which is downloaded once, to `scratch`."""

    __test__ = False  # pytest takes it for a test, by its name

    def __init__(self, store: Store, scratch: Path) -> None:
        self._store, self._scratch = store, scratch
        self._found: dict[str, tuple[Images, Labels]] = {}

    def load(self, digest: str) -> tuple[Images, Labels]:
        """Return the images (uint8, N x C x H x W) and labels (int64, N) of the test split with that digest.

        Raises one of LOST if the store does not have it any more, or not intact.
        """
        if digest not in self._found:
            self._found[digest] = self._download(digest)
        return self._found[digest]

    def _download(self, digest: str) -> tuple[Images, Labels]:
        folder = self._scratch / digest
        for entry in self._store.list(DATASETS):
            if DOCUMENTS.fullmatch(entry.name):
                content, _ = self._store.get_bytes(entry.name)
                with raise_as_corrupt():
                    data = Dataset(folder, DatasetDocument.parse(content, self._store.uri(entry.name)))
                if digest_of_test_split(data) == digest:
                    return self._load(data)
        raise NoSuchObject("its test split is not in the store any more", "run the pipeline again")

    def _load(self, data: Dataset) -> tuple[Images, Labels]:
        for shard in data.document.splits["test"].shards:
            for file in shard.files:
                self._store.get_file(f"{SHARDS}/{file.sha256}.npy", data.folder / file.path, file.sha256)
        return data.load("test")


def find_mistakes(
    versions: Versions, document: VersionDocument, splits: TestSplits
) -> tuple[Images, list[Mistake], int]:
    """Return the pictures (uint8) that a version gets wrong with the highest probability, and how many it gets wrong.

    Raises one of LOST if its predictions or its test split are not in the store, or not intact.
    """
    images, labels = splits.load(document.provenance.test_split_digest)
    predictions = versions.read_predictions(document, len(labels))
    predicted = predictions.argmax(axis=1)
    (wrong,) = np.nonzero(predicted != labels)
    certain = wrong[np.argsort(-predictions[wrong, predicted[wrong]], kind="stable")][:SHOWN]
    return images[certain], [_mistake(number, labels, predictions) for number in certain], len(wrong)


def why_unknown(error: UserError) -> str:
    """Return the sentence that the page has in place of the mistakes, for one of LOST."""
    is_gone = isinstance(error, NoSuchObject)
    reason = "the test set is not in the store any more" if is_gone else "the store has lost some of it"
    return f"Which pictures of the test set it gets wrong is not known: {reason}."


def _mistake(number: int, labels: Labels, predictions: NDArray[np.float32]) -> Mistake:
    predicted = int(predictions[number].argmax())
    probability = float(predictions[number, predicted])
    return Mistake(
        number=int(number), truth=int(labels[number]), predicted=predicted, probability=min(probability, 1.0)
    )
