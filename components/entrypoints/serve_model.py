"""Serve a package by the Open Inference Protocol, in a container of the image `serve`.

python -m components.entrypoints.serve_model --package /package --host 0.0.0.0
python -m components.entrypoints.serve_model --store s3://bucket/prefix --model mnist --host 0.0.0.0    # its champion

`python pipeline.py serve` does the same on a laptop. The store's keys are those of the AWS tools' variables.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.model_server.champion import Champion, Current
from components.shared.model_server.options import add_options, options_of
from components.shared.model_server.program import FOLDER_NAME, open_folder, open_version
from components.shared.model_server.server import Address, serve
from components.shared.registry.registry import RegisteredModel
from components.shared.storage.client import open_store


def run(words: Sequence[str]) -> None:
    """Serve until SIGTERM. Raises UserError if there is nothing to serve, or a port cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m components.entrypoints.serve_model", description=__doc__)
    parser.add_argument("--package", type=Path, metavar="DIR", help="a folder with package.json and model.onnx")
    parser.add_argument("--store", metavar="s3://BUCKET/PREFIX", help="the store with the model")
    parser.add_argument("--model", metavar="NAME[/VERSION]", help="the model; its champion, if no version is given")
    add_options(parser)
    given = parser.parse_args(words)
    serve(_current(given), options_of(given), _started)


def _current(given: argparse.Namespace) -> Current:
    if given.package:
        return Current(open_folder(given.package, given.threads, given.model or FOLDER_NAME))
    if not given.store or not given.model:
        raise UserError("there is nothing to serve", "give --package DIR, or --store and --model")
    name, _, version = given.model.partition("/")
    model = RegisteredModel(open_store(given.store, os.environ), name)
    if version.isdecimal():
        return Current(open_version(model, int(version), given.threads))
    if version not in ("", "champion"):
        raise UserError(f"--model {given.model} is no version", "give NAME or NAME/VERSION")
    return Champion(model, given.threads)


def _started(address: Address) -> None:
    log.info(f"REST at http://{address.host}:{address.port}/v2, gRPC at {address.host}:{address.grpc_port}")


if __name__ == "__main__":
    try:
        with log.named("serve"):
            run(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
