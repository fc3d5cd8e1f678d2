"""Verb `models`: list the registered models of a store; promote, roll back, compare and prune their versions."""

import argparse
from collections.abc import Iterator
from typing import Any

from components.shared.core.errors import UserError
from components.shared.registry.document import RegistryDocument
from components.shared.registry.registry import RegisteredModel, model_names
from components.shared.storage.client import Store
from runner.registry.retention import Retention, RetentionError
from runner.registry.store import store_of

NO_MODELS = "has no models yet"
HOW_TO_REGISTER = "run the pipeline; it registers a model once it is accepted"


def handle(arguments: argparse.Namespace) -> int:
    """Carry out the action, and return the exit code."""
    with store_of(arguments) as store:
        for line in ACTIONS[arguments.action](arguments, store):
            print(line)
    return 0


def existing_model(store: Store, name: str) -> RegisteredModel:
    """Return the model of that name. Raises UserError if the store does not have it."""
    names = model_names(store)
    if not names:
        raise UserError(f"{store.uri()} has no model {name}: it {NO_MODELS}", HOW_TO_REGISTER)
    if name not in names:
        raise UserError(f"{store.uri()} has no model {name}", f"it has {', '.join(names)}")
    return RegisteredModel(store, name)


def _list(_: argparse.Namespace, store: Store) -> Iterator[str]:
    names = model_names(store)
    if not names:
        yield f"{store.uri()} {NO_MODELS}; {HOW_TO_REGISTER}"
        return
    yield f"{'model':<20}{'version':>8}  {'state':<10}{'accuracy':>9}{'images':>9}  {'created':<26}run"
    for name in names:
        registry = RegisteredModel(store, name).read()
        for entry in registry.versions:
            state = "champion" if entry.version == registry.champion else entry.state
            yield (
                f"{name:<20}{entry.version:>8}  {state:<10}{entry.accuracy:>9.2%}{entry.images:>9,}"
                f"  {entry.created:<26}{entry.run_id}"
            )


def _promote(arguments: argparse.Namespace, store: Store) -> Iterator[str]:
    model = existing_model(store, arguments.name)
    before = model.read().champion
    yield _describe_change(model, before, model.promote(arguments.version))


def _roll_back(arguments: argparse.Namespace, store: Store) -> Iterator[str]:
    model = existing_model(store, arguments.name)
    before = model.read().champion
    yield _describe_change(model, before, model.rollback())


def _describe_change(model: RegisteredModel, before: int | None, registry: RegistryDocument) -> str:
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
    return prune(store, days=arguments.older_than, keep=arguments.keep, is_dry=arguments.dry_run)


def prune(store: Store, *, days: float, keep: int | None, is_dry: bool) -> Iterator[str]:
    """Remove from a store what retention does not need, unless `is_dry`; yield a line about each."""
    try:
        for found in Retention(store, days).unneeded(keep):
            if not is_dry:
                found.remove()
            yield f"{'would remove' if is_dry else 'removed'} {found.description}"
    except RetentionError as error:
        yield f"no prepared data is removed, for {error}"


ACTIONS = {None: _list, "list": _list, "promote": _promote, "rollback": _roll_back, "diff": _diff, "prune": _prune}
