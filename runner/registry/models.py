"""Verb `models`: list the registered models of a store; promote, roll back, compare and prune their versions."""

import argparse
from collections.abc import Iterator
from typing import Any

from components.shared.core.document import Items, Part, Size
from components.shared.core.printable import say
from components.shared.registry.champion import previous_champion
from components.shared.registry.document import RegistryDocument, VersionEntry
from components.shared.registry.registry import (
    HOW_TO_REGISTER,
    NO_MODELS,
    RegisteredModel,
    StillNeeded,
    existing_model,
    model_names,
)
from components.shared.storage.client import Store
from runner.answer import Answer
from runner.registry.retention import Retention, RetentionError
from runner.registry.store import store_of

KEPT = "kept "


class ModelFacts(Part):
    """A registered model: its champion and its versions."""

    name: str
    champion: Size | None
    versions: Items[VersionEntry]


class ModelsDocument(Answer):
    """The models of a store, or the one whose champion was changed."""

    FORMAT = "torch2kubeflow/models"

    store: str
    models: Items[ModelFacts]


class DiffDocument(Answer):
    """How two versions of a model differ: the values of both, by the path of the field."""

    FORMAT = "torch2kubeflow/diff"

    name: str
    versions: Items[Size]  # the two
    fields_that_differ: dict[str, Items[Any]]


class PruneDocument(Answer):
    """What was removed from a store, or would be, in words."""

    FORMAT = "torch2kubeflow/prune"

    store: str
    is_dry_run: bool
    removed: Items[str]
    kept: Items[str]  # what has changed between the judgment and the removal
    note: str | None  # why prepared data could not be judged


def handle(arguments: argparse.Namespace) -> int:
    """Carry out the action, and return the exit code."""
    with store_of(arguments) as store:
        for line in ACTIONS[arguments.action](arguments, store):
            say(line)
    return 0


def _facts(registry: RegistryDocument) -> ModelFacts:
    return ModelFacts(name=registry.name, champion=registry.champion, versions=registry.versions)


def _list(arguments: argparse.Namespace, store: Store) -> Iterator[str]:
    names = model_names(store)
    registries = [RegisteredModel(store, name).read() for name in names]
    arguments.document = ModelsDocument(store=store.uri(), models=[_facts(registry) for registry in registries])
    if not names:
        yield f"{store.uri()} {NO_MODELS}; {HOW_TO_REGISTER}"
        return
    yield f"{'model':<20}{'version':>8}  {'state':<10}{'accuracy':>9}{'images':>9}  {'created':<26}run"
    for name, registry in zip(names, registries, strict=True):
        for entry in registry.versions:
            state = "champion" if entry.version == registry.champion else entry.state
            yield (
                f"{name:<20}{entry.version:>8}  {state:<10}{entry.accuracy:>9.2%}{entry.images:>9,}"
                f"  {entry.created:<26}{entry.run_id}"
            )


def _promote(arguments: argparse.Namespace, store: Store) -> Iterator[str]:
    model = existing_model(store, arguments.name)
    before = model.read()
    _check_readable(model, before, arguments.version)
    yield _change(arguments, model, before.champion, model.promote(arguments.version, before))


def _roll_back(arguments: argparse.Namespace, store: Store) -> Iterator[str]:
    model = existing_model(store, arguments.name)
    before = model.read()
    _check_readable(model, before, previous_champion(before))
    yield _change(arguments, model, before.champion, model.rollback(before))


def _check_readable(model: RegisteredModel, registry: RegistryDocument, version: int | None) -> None:
    """Raise UserError if the store cannot read the document of a complete version: nobody could use that champion."""
    for entry in registry.versions:
        if (entry.version, entry.state) == (version, "complete"):
            model.versions.read(entry.version)


def _change(
    arguments: argparse.Namespace, model: RegisteredModel, before: int | None, registry: RegistryDocument
) -> str:
    """Return in words what became of the champion."""
    arguments.document = ModelsDocument(store=model.store.uri(), models=[_facts(registry)])
    champion = registry.champion
    assert champion is not None
    if champion == before:
        return f"{model.name} version {champion} is the champion already"
    replaced = f", replacing version {before}" if before else ""
    return f"{model.name} version {champion} is the champion now{replaced}: {model.uri(champion)}"


def _diff(arguments: argparse.Namespace, store: Store) -> Iterator[str]:
    model = existing_model(store, arguments.name)
    numbers = (arguments.version, arguments.other)
    first, second = (dict(_flatten(model.read_version(number).fields())) for number in numbers)
    names = [name for name in [*first, *second.keys() - first.keys()] if first.get(name) != second.get(name)]
    differing = {name: [first.get(name), second.get(name)] for name in names}
    arguments.document = DiffDocument(name=model.name, versions=list(numbers), fields_that_differ=differing)
    yield f"{'':<40}{f'version {arguments.version}':<28}version {arguments.other}"
    for name in names:
        yield f"{name:<40}{_cell(first.get(name)):<28}{_cell(second.get(name))}"


def _flatten(fields: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of a version's document with their paths; its number and files always differ, so not those."""
    for name, value in fields.items():
        if isinstance(value, dict) and name != "files":
            yield from _flatten(value, f"{path}{name}.")
        elif name not in ("files", "version"):
            yield f"{path}{name}", value


def _cell(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)
    return text if len(text) <= 26 else f"{text[:25]}…"


def _prune(arguments: argparse.Namespace, store: Store) -> Iterator[str]:
    done, lines = "would remove " if arguments.dry_run else "removed ", []
    days, predictions = arguments.older_than, arguments.predictions_older_than
    for line in prune(store, days=days, keep=arguments.keep, predictions=predictions, is_dry=arguments.dry_run):
        lines.append(line)
        yield line
    arguments.document = PruneDocument(
        store=store.uri(),
        is_dry_run=arguments.dry_run,
        removed=[line.removeprefix(done) for line in lines if line.startswith(done)],
        kept=[line.removeprefix(KEPT) for line in lines if line.startswith(KEPT)],
        note=next((line for line in lines if not line.startswith((done, KEPT))), None),
    )


def prune(
    store: Store, *, days: float, keep: int | None, predictions: float | None = None, is_dry: bool
) -> Iterator[str]:
    """Remove from a store what retention does not need, unless `is_dry`; yield a line about each."""
    try:
        for found in Retention(store, days, predictions).unneeded(keep):
            try:
                if not is_dry:
                    found.remove()
                yield f"{'would remove' if is_dry else 'removed'} {found.description}"
            except StillNeeded:
                yield f"{KEPT}{found.description}: it has changed meanwhile"
    except RetentionError as error:
        yield f"no prepared data is removed, for {error}"


ACTIONS = {None: _list, "list": _list, "promote": _promote, "rollback": _roll_back, "diff": _diff, "prune": _prune}
