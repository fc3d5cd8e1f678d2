"""The rule of what a store keeps: which versions, and which leftovers of interrupted and finished runs, are unneeded.

Leftovers are unneeded once they are older than a given number of days, for a younger one may still be in use. Complete
versions stay whatever their age, unless only the newest are to be kept; the champion and the one before it always stay.
Complete predictions stay, too, unless they are to go at an age of their own.
"""

from collections.abc import Callable, Container, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import groupby
from typing import NamedTuple

from components.shared.core.errors import CorruptDataError
from components.shared.data import prepared_index
from components.shared.data.dataset_store import SHARDS, read_recipe
from components.shared.data.prepared_index import DATASETS, dataset_folder
from components.shared.prediction.document import MANIFEST
from components.shared.prediction.pods import stored as predictions
from components.shared.registry.champion import previous_champion
from components.shared.registry.document import RegistryDocument
from components.shared.registry.registry import RegisteredModel, StillNeeded, model_names
from components.shared.storage.client import Entry, Store
from components.shared.storage.errors import NoSuchObject
from components.shared.training.checkpoints import store as checkpoints
from components.shared.training.distributed import handoff
from components.shared.training.search import asha


class Unneeded(NamedTuple):
    """Something to remove from a store, and how: of a version, `remove` raises StillNeeded if that has changed."""

    description: str
    remove: Callable[[], None]


class RetentionError(Exception):
    """Prepared data cannot be judged; the text gives the reason."""


class Retention:
    """The rule applied to one store; it changes nothing by itself."""

    def __init__(self, store: Store, days: float, prediction_days: float | None = None) -> None:
        """Take what was written more than `days` ago for old; complete predictions have own days (None: never)."""
        now = datetime.now(UTC)
        self._store, self._before = store, now - timedelta(days=days)
        self._predicted_before = None if prediction_days is None else now - timedelta(days=prediction_days)

    def unneeded(self, keep: int | None) -> Iterator[Unneeded]:
        """Yield what can be removed; of each model the newest `keep` versions stay (None: all).

        Ends with RetentionError if it is unknown which prepared data is in use; all else has been yielded by then.
        """
        removed: set[tuple[str, int]] = set()
        for name in model_names(self._store):
            model = RegisteredModel(self._store, name)
            for version, description in self._judge(model, model.read(), keep):
                removed.add((name, version))
                yield Unneeded(description, partial(self._prune, model, version, keep, removed))
        yield from self._folders(checkpoints.FOLDER, lambda key, n: f"{n} checkpoints of the training {key[:12]}")
        yield from self._folders(asha.FOLDER, lambda sweep, n: f"{n} rungs of the sweep {sweep[:12]}")
        yield from self._folders(handoff.FOLDER, lambda job, n: f"{n} files of the job {job}")
        yield from self._folders(prepared_index.UNITS, lambda key, n: f"{n} files of the units {key[:12]}")
        yield from self._folders(prepared_index.SOURCES, lambda key, n: f"{n} files of the archive {key[:12]}")
        yield from self._predictions()
        yield from self._uploads()
        yield from self._index()
        yield from self._datasets(removed)

    def _prune(self, model: RegisteredModel, version: int, keep: int | None, removed: set[tuple[str, int]]) -> None:
        """Delete the files of a version; if it is needed by now, take it out of `removed` and raise StillNeeded."""

        def is_unneeded(registry: RegistryDocument) -> bool:
            return version in dict(self._judge(model, registry, keep))

        try:
            model.prune(version, is_unneeded)
        except StillNeeded:
            removed.discard((model.name, version))
            raise

    def _judge(self, model: RegisteredModel, registry: RegistryDocument, keep: int | None) -> Iterator[tuple[int, str]]:
        """Yield the versions that are unneeded by a registry document, each with a description."""
        complete = [entry.version for entry in registry.versions if entry.state == "complete"]
        needed = {registry.champion, previous_champion(registry), *complete[-(keep or len(complete)) :]}
        for entry in registry.versions:
            number, is_old = entry.version, datetime.fromisoformat(entry.created) < self._before
            version = f"{model.name} version {number}"
            match entry.state:
                case "complete" if number not in needed:
                    yield number, version
                case "claimed" if is_old:
                    yield number, f"{version}, whose registration was never completed"
                case "pruning":
                    yield number, f"{version}, whose removal was interrupted"
                case "pruned" if self._are_old(found := [*model.versions.list_files(number)]):
                    yield number, f"{len(found)} files uploaded for {version} after it was removed"

    def _folders(self, under: str, describe: Callable[[str, int], str]) -> Iterator[Unneeded]:
        """Yield the folders below `under` in which everything is old."""
        for name, entries in self._by_folder(under):
            if self._are_old(entries):
                yield self._objects(describe(name, len(entries)), entries)

    def _predictions(self) -> Iterator[Unneeded]:
        """Yield old predictions: those that are to go, and those that were never completed."""
        for name, entries in self._by_folder(predictions.FOLDER, depth=2):
            manifest = f"{predictions.FOLDER}/{name}/{MANIFEST}"
            is_complete = manifest in {entry.name for entry in entries}
            before = self._predicted_before if is_complete else self._before
            if before and self._are_old(entries, before):
                model, _, key = name.partition("/")
                count, megabytes = len(entries), sum(entry.size for entry in entries) / 1e6
                size = f"{count} file{'s' * (count != 1)}, {megabytes:,.1f} MB"
                state = "" if is_complete else ", which were never completed"
                names = [entry.name for entry in entries if entry.name != manifest]
                remove = partial(self._remove_predictions, manifest, names)
                yield Unneeded(f"the predictions {key[:12]} by {model}, {size}{state}", remove)

    def _remove_predictions(self, manifest: str, names: Sequence[str]) -> None:
        self._store.remove(manifest)  # first, so that it describes complete ones as long as it is there
        self._store.remove(*names)

    def _uploads(self) -> Iterator[Unneeded]:
        for upload in self._store.unfinished_uploads(self._before):
            description = f"an upload of {upload.name} that was never finished"
            yield Unneeded(description, partial(self._store.abort, upload))

    def _index(self) -> Iterator[Unneeded]:
        """Yield what still tells of prepared data that an earlier pruning has removed."""
        for entry in self._store.list(prepared_index.FOLDER):
            if self._is_old(entry) and prepared_index.leads_nowhere(self._store, entry.name):
                yield self._objects("an entry of the index of prepared data that is gone", [entry])

    def _datasets(self, removed: Container[tuple[str, int]]) -> Iterator[Unneeded]:
        """Yield prepared data that no remaining version was trained on, and shards that no prepared data refers to."""
        used = self._digests_in_use(removed)
        referred: set[str] = set()
        shards: list[Entry] = []
        for folder, entries in self._by_folder(DATASETS):
            if dataset_folder(folder) == SHARDS:
                shards = entries
                continue
            try:
                digest, names = read_recipe(self._store, folder)
            except (CorruptDataError, NoSuchObject):
                digest, names = "", set()
            if digest not in used and self._are_old(entries):
                yield self._objects(f"the prepared data {folder[:12]}", entries)
            else:
                referred |= names
        orphans = [entry for entry in shards if entry.name not in referred and self._is_old(entry)]
        if orphans:
            megabytes = sum(entry.size for entry in orphans) / 1e6
            yield self._objects(f"{len(orphans)} shards of prepared data, {megabytes:,.1f} MB", orphans)

    def _digests_in_use(self, removed: Container[tuple[str, int]]) -> set[str]:
        """Return the digests of the data that all complete versions but those removed were trained on."""
        digests = set()
        for name in model_names(self._store):
            model = RegisteredModel(self._store, name)
            for entry in model.read().versions:
                if entry.state == "complete" and (name, entry.version) not in removed:
                    try:
                        digests.add(model.read_version(entry.version).provenance.dataset_digest)
                    except (CorruptDataError, NoSuchObject) as error:
                        raise RetentionError(f"it is unknown what a version was trained on: {error}") from None
        return digests

    def _by_folder(self, under: str, depth: int = 1) -> Iterator[tuple[str, list[Entry]]]:
        """Yield the folders so deep below `under`, and all that each holds."""
        for name, entries in groupby(self._store.list(under), lambda entry: entry.name.split("/")[1 : depth + 1]):
            yield "/".join(name), list(entries)

    def _objects(self, description: str, entries: Sequence[Entry]) -> Unneeded:
        return Unneeded(description, partial(self._store.remove, *(entry.name for entry in entries)))

    def _are_old(self, entries: Sequence[Entry], before: datetime | None = None) -> bool:
        return len(entries) > 0 and all(self._is_old(entry, before) for entry in entries)

    def _is_old(self, entry: Entry, before: datetime | None = None) -> bool:
        return entry.modified is not None and entry.modified < (before or self._before)
