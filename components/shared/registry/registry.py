"""The model registry: of each model in the store numbered versions, one of which is the champion.

models/<name>/register.json      the registry document: versions, champion and every decision about it. It changes only
                                 by compare-and-swap, so that no number is given twice and there is one champion
models/<name>/versions/<n>/      the files of a version: see versions.py
"""

import copy
import random
import re
import time
from collections.abc import Callable

from components.shared.core.errors import CorruptDataError, TransientError, UserError, raise_as_corrupt
from components.shared.parameters.registration import Registration
from components.shared.registry.champion import Verdict, add_decision, decision_about, now, previous_champion
from components.shared.registry.document import RegistryDocument, VersionDocument, VersionEntry
from components.shared.registry.versions import Versions
from components.shared.storage.client import Store
from components.shared.storage.errors import Conflict, NoSuchObject

Rule = Callable[[RegistryDocument], bool]  # of what a document says

ATTEMPTS = 200  # to update a registry document that others update too
MAX_WAIT_SECONDS = 2.0
DECISION_BYTES = 2**14  # at most, in the registry document
SHOWN_MODELS = 5  # of those of a store
NO_MODELS = "has no models yet"
HOW_TO_REGISTER = "run the pipeline; it registers a model once it is accepted"


class StillNeeded(Exception):
    """A version that is not pruned, since what was judged has changed meanwhile: nothing was changed."""


def model_names(store: Store) -> list[str]:
    """Return the names of the models in a store, sorted."""
    found = (re.fullmatch(r"models/([^/]+)/register\.json", entry.name) for entry in store.list("models"))
    return sorted(match[1] for match in found if match)


class RegisteredModel:
    """A model in a store, by its name; it need not exist yet. Threads may share it."""

    def __init__(self, store: Store, name: str) -> None:
        """Make no request. Raises UserError if `name` is not a valid model name."""
        Registration.of(model_name=name)
        if not name:
            raise UserError("the model's name is empty", "give one of small letters, digits and -")
        self.store, self.name = store, name
        self.versions = Versions(store, name)
        self._document_name = f"models/{name}/register.json"

    def uri(self, version: int) -> str:
        """Return the URI of a version."""
        return self.versions.uri(version)

    def read(self) -> RegistryDocument:
        """Return the registry document; one without versions if the model does not exist."""
        return self._read()[0]

    def etag(self) -> str:
        """Return the ETag of the registry document, which changes with it; empty if it does not exist."""
        found = self.store.stat(self._document_name)
        return found.etag if found else ""

    def entry(self, version: int) -> VersionEntry:
        """Return the entry of a version in the registry document. Raises UserError if there is no such version."""
        return _entry(self.read(), version)

    def read_version(self, version: int) -> VersionDocument:
        """Return the document of a complete version.

        Raises NoSuchObject with the version's state if it has no files, and UserError if there is no such version.
        """
        try:
            return self.versions.read(version)
        except NoSuchObject:
            message = f"{self.uri(version)}/version.json does not exist: the version is {self.entry(version).state}"
            raise NoSuchObject(message, "register its package to restore it") from None

    def reserve_version(
        self,
        package_digest: str,
        *,
        accuracy: float,
        images: int,
        test_split_digest: str,
        model_digest: str,
        run_id: str,
    ) -> VersionEntry:
        """Return the entry of the version that already holds a package, or reserve the next number for it.

        An incomplete version is reserved from now on, so that retention does not take it for abandoned. Raises
        UserError if its files are being deleted, or the registry document is full.
        """

        def reserve(registry: RegistryDocument) -> None:
            entry = _entry_of_package(registry, package_digest)
            if entry is None:
                entry = VersionEntry(
                    version=len(registry.versions) + 1,
                    package_digest=package_digest,
                    created=now(),
                    state="claimed",
                    accuracy=accuracy,
                    images=images,
                    test_split_digest=test_split_digest,
                    model_digest=model_digest,
                    run_id=run_id,
                )
                registry.versions.append(entry)
                self._check_room(registry)
            elif entry.state == "pruning":
                raise UserError(
                    f"{self.name} version {entry.version} holds the same package and is being pruned",
                    "wait, or run `models prune` to completion, and register it again",
                )
            elif entry.state != "complete":
                entry.state, entry.created = "claimed", now()

        entry = _entry_of_package(self._update(reserve), package_digest)
        assert entry is not None
        return entry

    def finalize(self, version: int, judge: Callable[[RegistryDocument], Verdict]) -> RegistryDocument:
        """Mark a version as complete, let `judge` decide on the champion, and return the registry document.

        A version is judged once only. Raises UserError if its files have been deleted meanwhile.
        """

        def complete(registry: RegistryDocument) -> None:
            entry = _entry(registry, version)
            if entry.state in ("pruning", "pruned") or not self.versions.is_uploaded(version):
                raise UserError(
                    f"{self.name} version {version} was pruned while it was registered", "register it again"
                )
            entry.state = "complete"
            if not decision_about(registry, version):
                wins, figures, reason = judge(registry)
                add_decision(registry, "register", entry, version if wins else registry.champion, figures, reason)

        return self._update(complete)

    def promote(self, version: int, judged: RegistryDocument | None = None) -> RegistryDocument:
        """Make a version the champion, whatever its figures, and return the registry document.

        Raises UserError if the champion is no longer that of the document that was `judged`.
        """

        def promote(registry: RegistryDocument) -> None:
            entry = _entry(registry, version)
            if entry.state != "complete":
                raise UserError(
                    f"{self.name} version {version} is {entry.state}, so it cannot be the champion",
                    "give a version that is complete",
                )
            if registry.champion != version:
                _check_champion(registry, judged)
                add_decision(registry, "promote", entry, version, None, "by hand")

        return self._update(promote)

    def rollback(self, judged: RegistryDocument | None = None) -> RegistryDocument:
        """Make the previous champion the champion again, and return the registry document. Raises as `promote` does."""

        def rollback(registry: RegistryDocument) -> None:
            _check_champion(registry, judged)
            previous = previous_champion(registry)
            if previous is None:
                raise UserError(f"{self.name} has no champion to go back to", "promote a version")
            add_decision(registry, "rollback", _entry(registry, previous), previous, None, "by hand")

        return self._update(rollback)

    def prune(self, version: int, is_unneeded: Rule = lambda _: True) -> None:
        """Delete the files of a version that is not the champion; its number and entry stay.

        Meanwhile nobody can register it. An interrupted pruning is completed by repeating it. Raises StillNeeded,
        with nothing deleted, unless the version `is_unneeded` by the registry document of this moment.
        """

        def begin(registry: RegistryDocument) -> None:
            if not is_unneeded(registry):
                raise StillNeeded(f"{self.name} version {version} has changed meanwhile")
            if registry.champion == version:
                raise UserError(f"{self.name} version {version} is the champion", "promote another before pruning it")
            _entry(registry, version).state = "pruning"

        def end(registry: RegistryDocument) -> None:
            entry = _entry(registry, version)
            if entry.state == "pruning":  # another pruning may have ended it, and the package been registered again
                entry.state = "pruned"

        self._update(begin)
        self.versions.delete(version)
        self._update(end)

    def _read(self) -> tuple[RegistryDocument, str]:
        """Return the registry document and its ETag, which is empty if it does not exist."""
        try:
            content, etag = self.store.get_bytes(self._document_name, RegistryDocument.MAX_BYTES)
        except NoSuchObject:
            return RegistryDocument(name=self.name, champion=None, versions=[], decisions=[]), ""
        uri = self.store.uri(self._document_name)
        with raise_as_corrupt():
            registry = RegistryDocument.parse(content, uri)
        if registry.name != self.name:
            raise CorruptDataError(f"{uri} is of the model {registry.name!r}", RegistryDocument.REMEDY)
        return registry, etag

    def _check_room(self, registry: RegistryDocument) -> None:
        """Raise UserError if a document with a new version leaves no room for the decision about it."""
        if len(registry.to_json()) > RegistryDocument.MAX_BYTES - DECISION_BYTES:
            raise UserError(
                f"{self.store.uri(self._document_name)} is full: it has {len(registry.versions) - 1:,} versions, and "
                f"more than {RegistryDocument.MAX_BYTES:,} bytes could not be read",
                "give another model_name=",
            )

    def _update(self, change: Callable[[RegistryDocument], None]) -> RegistryDocument:
        """Change the registry document by compare-and-swap, retrying while others change it; return the new one."""
        for failures in range(ATTEMPTS):
            registry, etag = self._read()
            before = copy.deepcopy(registry)
            change(registry)
            if registry == before:
                return registry
            try:
                self.store.put_bytes(registry.to_json(), self._document_name, if_absent=not etag, if_match=etag)
                return registry
            except Conflict:
                time.sleep(random.uniform(0, min(0.05 * 2 ** min(failures, 9), MAX_WAIT_SECONDS)))
        raise TransientError(
            f"{self.store.uri(self._document_name)} was changed by others in each of {ATTEMPTS} attempts",
            "try again later",
        )


def existing_model(store: Store, name: str) -> RegisteredModel:
    """Return the model of that name. Raises UserError if the store does not have it."""
    names = model_names(store)
    if not names:
        raise UserError(f"{store.uri()} has no model {name}: it {NO_MODELS}", HOW_TO_REGISTER)
    if name not in names:
        raise UserError(f"{store.uri()} has no model {name}", f"it has {', '.join(names)}")
    return RegisteredModel(store, name)


def named_or_only(store: Store, name: str, remedy: str) -> RegisteredModel:
    """Return the model of that name, or the only one of the store if it is empty.

    Raises UserError if there is none, and one with the remedy if it has to be named.
    """
    if name:
        return existing_model(store, name)
    names = model_names(store)
    if not names:
        raise UserError(f"{store.uri()} {NO_MODELS}", HOW_TO_REGISTER)
    if len(names) > 1:
        more = f" and {len(names) - SHOWN_MODELS} more" if len(names) > SHOWN_MODELS else ""
        shown = ", ".join(names[:SHOWN_MODELS])
        raise UserError(f"{store.uri()} has {len(names)} models: {shown}{more}", remedy)
    return RegisteredModel(store, names[0])


def champion_of(model: RegisteredModel, remedy: str) -> int:
    """Return the champion of this moment. Raises UserError with the remedy if there is none."""
    champion = model.read().champion
    if champion is None:
        raise UserError(f"{model.name} has no champion", remedy)
    return champion


def _entry(registry: RegistryDocument, version: int) -> VersionEntry:
    versions = registry.versions
    if not 1 <= version <= len(versions):
        remedy = f"it has versions 1 to {len(versions)}" if versions else "it has none"
        raise UserError(f"{registry.name} has no version {version}", remedy)
    return versions[version - 1]


def _check_champion(registry: RegistryDocument, judged: RegistryDocument | None) -> None:
    """Raise UserError if another version has become the champion since a document was judged."""
    if judged and registry.champion != judged.champion:
        raise UserError(
            f"{registry.name} has a new champion since this began: version {registry.champion}",
            "look at `models`, and give the verb again if it is still right",
        )


def _entry_of_package(registry: RegistryDocument, package_digest: str) -> VersionEntry | None:
    return next((entry for entry in registry.versions if entry.package_digest == package_digest), None)
