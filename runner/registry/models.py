"""Verb `models`: the registered models of a store, and which version of each is the champion."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kfp.dsl.base_component import BaseComponent

from components.shared.core.errors import UserError
from components.shared.core.files import Document
from components.shared.registry.registry import RegisteredModel, model_names
from components.shared.storage.client import Store
from runner.local.s3_server import RUNS, store_of
from runner.registry.prune import Pruning

EXAMPLES = """examples:
  python pipeline.py models
  python pipeline.py models promote mnist 3
  python pipeline.py models rollback mnist
  python pipeline.py models diff mnist 2 3
  python pipeline.py models prune --keep 5 --dry-run
  python pipeline.py models --store s3://bucket/prefix
"""


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "models",
        help="show the models in the store; promote, roll back, compare and prune versions",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_store_options(parser)
    parser.set_defaults(handle=handle, act=_list)
    actions = parser.add_subparsers(metavar="ACTION")
    actions.add_parser("list", help="show versions, champions and metrics").set_defaults(act=_list)
    promoting = _add_action(actions, "promote", _promote, "make a version the champion")
    promoting.add_argument("version", type=int, metavar="VERSION")
    _add_action(actions, "rollback", _roll_back, "make the champion before the present one the champion again")
    comparing = _add_action(actions, "diff", _diff, "show in what two versions differ")
    comparing.add_argument("version", type=int, metavar="VERSION")
    comparing.add_argument("other", type=int, metavar="OTHER")
    pruning = actions.add_parser("prune", help="remove versions that are not needed, and what broken runs have left")
    pruning.add_argument("--keep", type=_count, metavar="N", help="newest versions to keep of each model; else all")
    says = "age of checkpoints, prepared data and half-done transfers to remove (default 7)"
    pruning.add_argument("--older-than", type=_days, default=7.0, metavar="DAYS", help=says)
    pruning.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    pruning.set_defaults(act=_prune)
    for action in actions.choices.values():
        add_store_options(action, argparse.SUPPRESS)


def handle(arguments: argparse.Namespace, _: BaseComponent) -> int:
    """Do what the action says, and return the exit code."""
    with store_of(arguments.store, arguments.runs) as store:
        for line in arguments.act(arguments, store):
            print(line)
    return 0


def add_store_options(parser: argparse.ArgumentParser, default: Any = None) -> None:
    """Add to a verb the options that `store_of` reads."""
    says = "the store; else that of `make run`"
    parser.add_argument("--store", default=default, metavar="s3://BUCKET/PREFIX", help=says)
    parser.add_argument("--runs", type=Path, default=default or RUNS, metavar="DIR", help="where local runs are kept")


def existing(store: Store, name: str) -> RegisteredModel:
    """The model of that name; UserError where the store has none."""
    names = model_names(store)
    if name not in names:
        known = f"it has {', '.join(names)}" if names else "it has no model yet; one is registered once it is accepted"
        raise UserError(f"{store.uri()} has no model {name}; {known}")
    return RegisteredModel(store, name)


def _add_action(actions: Any, name: str, act: Any, says: str) -> argparse.ArgumentParser:
    action: argparse.ArgumentParser = actions.add_parser(name, help=says)
    action.add_argument("name", metavar="NAME", help="name of the model")
    action.set_defaults(act=act)
    return action


def _list(_: argparse.Namespace, store: Store) -> Iterator[str]:
    names = model_names(store)
    if not names:
        yield f"{store.uri()} has no model yet; one is registered once it is accepted"
        return
    yield f"{'model':<20}{'version':>8}  {'state':<10}{'accuracy':>9}{'images':>9}  {'created':<26}run"
    for name in names:
        register = RegisteredModel(store, name).read()
        for entry in register["versions"]:
            state = "champion" if entry["version"] == register["champion"] else entry["state"]
            yield (
                f"{name:<20}{entry['version']:>8}  {state:<10}{entry['accuracy']:>9.2%}{entry['images']:>9,}"
                f"  {entry['created']:<26}{entry['run_id']}"
            )


def _promote(arguments: argparse.Namespace, store: Store) -> Iterator[str]:
    model = existing(store, arguments.name)
    before = model.read()["champion"]
    yield _changed(model, before, model.promote(arguments.version))


def _roll_back(arguments: argparse.Namespace, store: Store) -> Iterator[str]:
    model = existing(store, arguments.name)
    before = model.read()["champion"]
    yield _changed(model, before, model.rollback())


def _changed(model: RegisteredModel, before: int | None, register: Document) -> str:
    champion = register["champion"]
    if champion == before:
        return f"{model.name} version {champion} is the champion already"
    return f"{model.name} version {champion} is the champion now, in place of version {before}: {model.uri(champion)}"


def _diff(arguments: argparse.Namespace, store: Store) -> Iterator[str]:
    model = existing(store, arguments.name)
    first, second = (dict(_flat(model.version(number))) for number in (arguments.version, arguments.other))
    names = [name for name in [*first, *second.keys() - first.keys()] if first.get(name) != second.get(name)]
    yield f"{'':<40}{f'version {arguments.version}':<28}version {arguments.other}"
    for name in names:
        yield f"{name:<40}{_shown(first.get(name)):<28}{_shown(second.get(name))}"


def _flat(document: Document, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a document that may differ for a reason, by its path."""
    for name, value in document.items():
        if isinstance(value, dict) and name != "files":
            yield from _flat(value, f"{path}{name}.")
        elif name not in ("files", "version"):
            yield f"{path}{name}", value


def _shown(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)
    return text if len(text) <= 26 else f"{text[:25]}…"


def _prune(arguments: argparse.Namespace, store: Store) -> Iterator[str]:
    return Pruning(store, arguments.older_than, is_dry=arguments.dry_run).run(arguments.keep)


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is no number of versions; give 1 or more")
    return int(text)


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1
    if not 0 <= days < 36_500:
        raise argparse.ArgumentTypeError(f"{text} is no number of days; give 0 or more")
    return days
