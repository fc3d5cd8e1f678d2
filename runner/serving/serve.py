"""Verb `serve`: serve a version of a model, or a package, by the v2 protocol on this machine.

python pipeline.py serve    # `make serve`
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.shared.core import log
from components.shared.core.document import Count, Sha256
from components.shared.core.printable import say
from components.shared.model_server.champion import Champion, Current
from components.shared.model_server.options import options_of
from components.shared.model_server.program import open_folder, open_version
from components.shared.model_server.server import Address, serve
from runner.answer import Answer
from runner.registry.address import given_by_option


class ServeDocument(Answer):
    """What was served last, and where."""

    FORMAT = "torch2kubeflow/serve"

    name: str  # of the model
    version: str
    package_digest: Sha256
    host: str
    port: Count
    grpc_port: Count


def handle(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM, and return the exit code."""
    with log.named("serve"), _current(arguments) as current:

        def started(address: Address) -> None:
            for line in _lines(current, address):
                say(line, flush=True)
            arguments.document = _document(current, address)

        serve(current, options_of(arguments), started)
    return 0


@contextmanager
def _current(arguments: argparse.Namespace) -> Iterator[Current]:
    """Yield what --model names: a folder's package, a version, or a champion that is followed."""
    threads = arguments.threads
    with given_by_option(arguments) as given:
        if isinstance(given, Path):
            yield Current(open_folder(given, threads))
        elif given.version is None:
            yield Champion(given.model, threads)
        else:
            yield Current(open_version(given.model, given.version, threads))


def _lines(current: Current, address: Address) -> Iterator[str]:
    served = current.served
    follows = ", and each new champion," * isinstance(current, Champion)
    yield f"{served.name}, version {served.version}{follows} is served (Ctrl-C ends it)"
    yield f"  REST  http://{address.host}:{address.port}/v2/models/{served.name}"
    yield f"  gRPC  {address.host}:{address.grpc_port}"


def _document(current: Current, address: Address) -> ServeDocument:
    served = current.served
    return ServeDocument(
        name=served.name, version=served.version, package_digest=served.package.digest, **address._asdict()
    )
