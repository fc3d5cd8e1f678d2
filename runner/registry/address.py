"""How verbs name a version of a model: NAME (its champion), NAME/VERSION, or where it is in a store."""

import argparse
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from components.shared.core.errors import UserError
from components.shared.registry.registry import RegisteredModel, existing_model, model_names
from components.shared.storage.client import Store
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


def address_of_model(given: str | None) -> Address | None:
    """Return what option --model names; None if it was not given. Raises UserError if it is no model."""
    address = read_address(given) if given else None
    if given and not address:
        raise UserError(
            f"--model {given} is neither a folder with package.json nor a model",
            "give NAME, NAME/VERSION, or the folder package of a run",
        )
    return address


@contextmanager
def model_at(arguments: argparse.Namespace, address: Address | None) -> Iterator[RegisteredModel]:
    """Open the model at an address or, without one, the only model of the store.

    Raises UserError if it does not exist, or both the address and --store name a store.
    """
    if address and address.store and arguments.store:
        raise UserError(f"--store={arguments.store} was given, but {address.text} names a store", "omit --store")
    with store_of(arguments, address.store if address else None) as store:
        yield existing_model(store, address.name if address else _only_model(store))


def _only_model(store: Store) -> str:
    names = model_names(store)
    if len(names) == 1:
        return names[0]
    found = f"there are {len(names)}: {', '.join(names[:5])}" if names else "there is none in the store"
    raise UserError(f"no model was named, and {found}", "give --model NAME, or --model FOLDER with a package")
