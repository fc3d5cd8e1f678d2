"""What a store need not keep: old versions, and what broken and finished runs have left.

What is left over is removed once it is older than a given time, for something younger may be in the making; of complete
versions only the number to keep counts, not the age.
"""

from collections.abc import Container, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby

from components.shared.core.errors import CorruptDataError
from components.shared.data.dataset_store import SHARDS, read_recipe
from components.shared.registry.registry import RegisteredModel, model_names
from components.shared.storage.client import Entry, NoSuchObject, Store
from components.shared.training.distributed import handoff
from components.shared.training.search import asha


class Pruning:
    """Goes through a store and removes what is older than some days and not needed; when `is_dry`, it only tells."""

    def __init__(self, store: Store, days: float, *, is_dry: bool) -> None:
        self._store, self._is_dry = store, is_dry
        self._before = datetime.now(UTC) - timedelta(days=days)

    def run(self, keep: int | None) -> Iterator[str]:
        """Do it part by part and tell of each; of every model the newest `keep` versions stay (None: all)."""
        removed: set[tuple[str, int]] = set()
        for name in model_names(self._store):
            model = RegisteredModel(self._store, name)
            for version, what in self._unneeded(model, keep):
                yield self._told(what)
                removed.add((name, version))
                if not self._is_dry:
                    model.prune(version)
        yield from self._prune_checkpoints()
        yield from self._prune_sweeps()
        yield from self._prune_jobs()
        yield from self._prune_datasets(removed)
        yield from self._prune_uploads()

    def _unneeded(self, model: RegisteredModel, keep: int | None) -> Iterator[tuple[int, str]]:
        """The versions to remove, each with a line about it.

        Those that are neither among the newest nor needed, those whose registration was never completed, those whose
        removal was broken off, and what a registration sent after its version was removed.
        """
        register = model.read()
        complete = [entry["version"] for entry in register["versions"] if entry["state"] == "complete"]
        needed = {register["champion"], model.champion_before(register), *complete[-(keep or len(complete)) :]}
        for entry in register["versions"]:
            number, is_old = entry["version"], datetime.fromisoformat(entry["created"]) < self._before
            told = f"{model.name} version {number}"
            match entry["state"]:
                case "complete" if number not in needed:
                    yield number, told
                case "claimed" if is_old:
                    yield number, f"{told}, whose registration was never completed"
                case "pruning":
                    yield number, f"{told}, whose removal was broken off"
                case "pruned" if self._are_old(found := [*model.files(number)]):
                    yield number, f"{len(found)} files sent for {told} after it was removed"

    def _prune_checkpoints(self) -> Iterator[str]:
        for key, entries in groupby(self._store.list("checkpoints"), lambda entry: entry.name.split("/")[1]):
            found = list(entries)
            if self._are_old(found):
                yield self._told(f"{len(found)} checkpoints of the training {key[:12]}")
                self._remove(found)

    def _prune_sweeps(self) -> Iterator[str]:
        for sweep, entries in groupby(self._store.list(asha.FOLDER), lambda entry: entry.name.split("/")[1]):
            found = list(entries)
            if all(map(self._is_old, found)):
                yield self._told(f"{len(found)} rungs of the sweep {sweep[:12]}")
                self._remove(found)

    def _prune_jobs(self) -> Iterator[str]:
        for name, entries in groupby(self._store.list(handoff.FOLDER), lambda entry: entry.name.split("/")[1]):
            found = list(entries)
            if self._are_old(found):
                yield self._told(f"{len(found)} files of the job {name}")
                self._remove(found)

    def _prune_datasets(self, removed: Container[tuple[str, int]]) -> Iterator[str]:
        """Prepared data that no version was trained on but those removed, and shards that no prepared data names."""
        try:
            used = set(self._trained_on(removed))
        except (CorruptDataError, NoSuchObject) as error:
            yield f"no prepared data is removed, for a version does not tell what it was trained on: {error}"
            return
        named: set[str] = set()
        shards: list[Entry] = []
        for folder, entries in groupby(self._store.list("datasets"), lambda entry: entry.name.split("/")[1]):
            found = list(entries)
            if f"datasets/{folder}" == SHARDS:
                shards = found
                continue
            try:
                digest, names = read_recipe(self._store, folder)
            except (CorruptDataError, NoSuchObject):
                digest, names = "", set()
            if digest not in used and self._are_old(found):
                yield self._told(f"the prepared data {folder[:12]}")
                self._remove(found)
            else:
                named |= names
        unnamed = [entry for entry in shards if entry.name not in named and self._is_old(entry)]
        if unnamed:
            yield self._told(f"{len(unnamed)} shards of prepared data, {_megabytes(unnamed)}")
            self._remove(unnamed)

    def _trained_on(self, removed: Container[tuple[str, int]]) -> Iterator[str]:
        """The digests of the data of all complete versions but those removed; CorruptDataError or NoSuchObject."""
        for name in model_names(self._store):
            model = RegisteredModel(self._store, name)
            for entry in model.read()["versions"]:
                if entry["state"] == "complete" and (name, entry["version"]) not in removed:
                    yield model.version(entry["version"])["provenance"]["dataset_digest"]

    def _prune_uploads(self) -> Iterator[str]:
        for upload in self._store.unfinished_uploads(self._before):
            yield self._told(f"an upload of {upload.name} that was never finished")
            if not self._is_dry:
                self._store.abort(upload)

    def _are_old(self, entries: Sequence[Entry]) -> bool:
        return len(entries) > 0 and all(map(self._is_old, entries))

    def _is_old(self, entry: Entry) -> bool:
        return entry.modified is not None and entry.modified < self._before

    def _remove(self, entries: Iterable[Entry]) -> None:
        if not self._is_dry:
            self._store.remove(*(entry.name for entry in entries))

    def _told(self, what: str) -> str:
        return f"{'would remove' if self._is_dry else 'removed'} {what}"


def _megabytes(entries: Iterable[Entry]) -> str:
    return f"{sum(entry.size for entry in entries) / 1e6:,.1f} MB"
