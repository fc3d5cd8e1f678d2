"""How verbs name a version of a model: NAME (its champion), NAME/VERSION, or where it is in a store."""

import argparse
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from components.shared.core.errors import UserError
from components.shared.registry.registry import RegisteredModel, named_or_only
from runner.registry.store import store_of

ADDRESS = re.compile(
    r"(?:(?P<store>s3://.+)/models/)?(?P<name>[a-z0-9-]+)(?:/(?:champion|(?:versions/)?(?P<version>\d+)))?/?"
)


class Address(NamedTuple):
    """A version of a model; None stands for its champion."""

    text: str
    store: str | None  # its URI, if the text has it
    name: str
    version: int | None


def read_address(text: str) -> Address | None:
    """Return what a text names; None if that is no model."""
    found = ADDRESS.fullmatch(text)
    if not found:
        return None
    version = int(found["version"]) if found["version"] else None
    return Address(text, found["store"], found["name"], version)


class GivenModel(NamedTuple):
    """A model of a store, and which of its versions; None stands for its champion."""

    model: RegisteredModel
    version: int | None


@contextmanager
def given_by_option(arguments: argparse.Namespace) -> Iterator[Path | GivenModel]:
    """Yield what --model names: a folder with a package, or a model of the store; without it the only one there.

    Raises UserError if it names neither.
    """
    given = arguments.model
    if given and (Path(given) / "package.json").is_file():
        yield Path(given)
        return
    address = read_address(given) if given else None
    if given and not address:
        raise UserError(
            f"--model {given} is neither a folder with package.json nor a model",
            "give NAME, NAME/VERSION, or the folder package of a run",
        )
    with model_at(arguments, address) as model:
        yield GivenModel(model, address.version if address else None)


@contextmanager
def model_at(arguments: argparse.Namespace, address: Address | None) -> Iterator[RegisteredModel]:
    """Open the model at an address or, without one, the only model of the store.

    Raises UserError if it does not exist, or both the address and --store name a store.
    """
    if address and address.store and arguments.store:
        raise UserError(f"--store={arguments.store} was given, but {address.text} names a store", "omit --store")
    with store_of(arguments, address.store if address else None) as store:
        yield named_or_only(
            store, address.name if address else "", "give --model NAME, or --model FOLDER with a package"
        )
