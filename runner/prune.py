"""What a store need not keep: old versions, and what broken and finished runs have left.

Only what is older than a given time is removed, for something younger may be in the making.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby

from components.shared.errors import Damaged
from components.shared.model_store import RegisteredModel, model_names
from components.shared.prepared import SHARDS, read_recipe
from components.shared.storage import Entry, NoSuchObject, Store


class Pruning:
    """Goes through a store and removes what is older than some days and not needed; when `is_dry`, it only tells."""

    def __init__(self, store: Store, days: float, *, is_dry: bool) -> None:
        self._store, self._is_dry = store, is_dry
        self._before = datetime.now(UTC) - timedelta(days=days)

    def run(self, keep: int | None) -> Iterator[str]:
        """Do it part by part and tell of each; of every model the newest `keep` versions stay (None: all)."""
        for name in model_names(self._store):
            yield from self._prune_versions(RegisteredModel(self._store, name), keep)
        yield from self._prune_checkpoints()
        yield from self._prune_datasets()
        yield from self._prune_uploads()

    def _prune_versions(self, model: RegisteredModel, keep: int | None) -> Iterator[str]:
        """Versions that are neither among the newest nor needed; registrations that were never completed."""
        register = model.read()
        complete = [entry["version"] for entry in register["versions"] if entry["state"] == "complete"]
        needed = {register["champion"], model.champion_before(register), *complete[-(keep or len(complete)) :]}
        for entry in register["versions"]:
            number, is_old = entry["version"], datetime.fromisoformat(entry["created"]) < self._before
            if entry["state"] == "complete" and number not in needed:
                yield self._told(f"{model.name} version {number}")
            elif entry["state"] == "claimed" and is_old:
                yield self._told(f"{model.name} version {number}, whose registration was never completed")
            else:
                continue
            if not self._is_dry:
                model.prune(number)

    def _prune_checkpoints(self) -> Iterator[str]:
        for key, entries in groupby(self._store.list("checkpoints"), lambda entry: entry.name.split("/")[1]):
            found = list(entries)
            if all(map(self._is_old, found)):
                yield self._told(f"{len(found)} checkpoints of the training {key[:12]}")
                self._remove(found)

    def _prune_datasets(self) -> Iterator[str]:
        """Prepared data that no version was trained on, and shards that no prepared data names."""
        named: set[str] = set()
        shards: list[Entry] = []
        used = set(self._trained_on())
        for folder, entries in groupby(self._store.list("datasets"), lambda entry: entry.name.split("/")[1]):
            found = list(entries)
            if f"datasets/{folder}" == SHARDS:
                shards = found
                continue
            try:
                digest, names = read_recipe(self._store, folder)
            except (Damaged, NoSuchObject):
                digest, names = "", set()
            if digest not in used and all(map(self._is_old, found)):
                yield self._told(f"the prepared data {folder[:12]}")
                self._remove(found)
            else:
                named |= names
        unnamed = [entry for entry in shards if entry.name not in named and self._is_old(entry)]
        if unnamed:
            yield self._told(f"{len(unnamed)} shards of prepared data, {_megabytes(unnamed)}")
            self._remove(unnamed)

    def _trained_on(self) -> Iterator[str]:
        """The digests of the data of all versions that are kept."""
        for name in model_names(self._store):
            model = RegisteredModel(self._store, name)
            for entry in model.read()["versions"]:
                if entry["state"] == "complete":
                    yield model.version(entry["version"])["provenance"]["dataset_digest"]

    def _prune_uploads(self) -> Iterator[str]:
        for upload in self._store.unfinished_uploads(self._before):
            yield self._told(f"an upload of {upload.name} that was never finished")
            if not self._is_dry:
                self._store.abort(upload)

    def _is_old(self, entry: Entry) -> bool:
        return entry.modified is not None and entry.modified < self._before

    def _remove(self, entries: Iterable[Entry]) -> None:
        if not self._is_dry:
            self._store.remove(*(entry.name for entry in entries))

    def _told(self, what: str) -> str:
        return f"{'would remove' if self._is_dry else 'removed'} {what}"


def _megabytes(entries: Iterable[Entry]) -> str:
    return f"{sum(entry.size for entry in entries) / 1e6:,.1f} MB"
