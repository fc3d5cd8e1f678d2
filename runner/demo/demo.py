"""Verb `demo`: a page on which one draws what a model classifies, in the browser, served on this machine.

python pipeline.py demo    # `make demo`
"""

import argparse
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

from components.shared.core.document import Items
from components.shared.core.files import new_folder
from components.shared.core.printable import say
from components.shared.registry.registry import RegisteredModel, model_names, named_or_only
from components.shared.storage.client import Store
from runner.answer import Answer
from runner.demo.folder import check_target, write_page
from runner.demo.mistakes import TestSplits
from runner.demo.server import bound_server
from runner.demo.versions import offer_versions
from runner.registry.store import store_of
from runner.terminal import note

DEFAULT = "mnist"  # the model, if the store has several


class DemoDocument(Answer):
    """Where the demo is, the versions that it offers, and which it leaves out and why."""

    FORMAT = "torch2kubeflow/demo"

    folder: str
    name: str  # of the model
    versions: Items[int]
    left_out: Items[str]
    url: str | None  # where it was served


def handle(arguments: argparse.Namespace) -> int:
    """Write the folder, serve it until Ctrl-C unless told not to, and return the exit code."""
    check_target(arguments.output)
    with ExitStack() as stack:
        server = None
        if not arguments.no_serve:  # before the work: the port may be taken
            server = stack.enter_context(bound_server(arguments.output, arguments.host, arguments.port))
        arguments.document = _write(arguments, server.url if server else None)
        if server:
            say(f"draw at {server.url} (Ctrl-C ends it)", flush=True)
            with suppress(KeyboardInterrupt):
                server.serve_forever()
    return 0


def _write(arguments: argparse.Namespace, url: str | None) -> DemoDocument:
    """Write the folder, print what is in it, and return that."""
    with store_of(arguments) as store, tempfile.TemporaryDirectory() as scratch:
        model = _model(store, arguments.name)
        with new_folder(arguments.output) as folder:
            offer = offer_versions(model, arguments.versions, folder, TestSplits(store, Path(scratch)))
            write_page(folder, model.name, offer)
    numbers = [version.version for version in offer.versions]
    say(f"{model.name}, version {', '.join(map(str, numbers))}, in {arguments.output}: any web server can serve it")
    for line in offer.left_out:
        note(f"left out: {line}")
    return DemoDocument(
        folder=str(arguments.output), name=model.name, versions=numbers, left_out=offer.left_out, url=url
    )


def _model(store: Store, name: str | None) -> RegisteredModel:
    """Return the model of that name; without one that of MNIST, or the only model of the store."""
    if name is None and DEFAULT in model_names(store):
        name = DEFAULT
    return named_or_only(store, name or "", "name one of them")
