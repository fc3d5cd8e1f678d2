"""The options of the server, as the verb `serve` and the program of the image take them."""

import argparse
from typing import NamedTuple

MIB = 2**20
HOST, PORT, GRPC_PORT = "127.0.0.1", 8029, 8030
MAX_MIB = 64  # of a request; 16 is the default


class Options(NamedTuple):
    """How to serve a model."""

    host: str = HOST
    port: int = PORT  # of REST; 0 for any that is free
    grpc_port: int = GRPC_PORT
    threads: int = 0  # of the program; 0 for as many as there are CPUs
    max_batch: int = 64  # images that are predicted at once
    max_delay: float = 0.001  # seconds that a waiting request waits for others, if the program is not idle
    max_bytes: int = 16 * MIB  # of a request
    grace: float = 30.0  # seconds that requests in flight have when the server stops
    poll: float = 10.0  # seconds between two looks for a new champion


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    default = Options()
    text = "the address to serve at (%(default)s: this machine alone)"
    parser.add_argument("--host", default=default.host, metavar="ADDRESS", help=text)
    for option, value, what in (("--port", PORT, "REST"), ("--grpc-port", GRPC_PORT, "gRPC")):
        text = f"the port of {what} (%(default)s; 0: any that is free)"
        parser.add_argument(option, type=_number(0, 65_535), default=value, metavar="PORT", help=text)
    add_threads(parser)
    text = "images that are predicted at once, at most (%(default)s)"
    parser.add_argument("--max-batch", type=_number(1, 4096), default=default.max_batch, metavar="N", help=text)
    text = "how long requests that had to wait may wait for others to be predicted with them (%(default)s)"
    parser.add_argument("--max-delay-ms", type=_number(0, 1000), default=1, metavar="MS", help=text)
    text = "the largest request, in MiB (%(default)s)"
    parser.add_argument("--max-request", type=_number(1, MAX_MIB), default=16, metavar="MIB", help=text)
    text = "how long requests in flight are waited for at the end, in seconds (%(default)s)"
    parser.add_argument("--grace", type=_number(0, 3600), default=30, metavar="SECONDS", help=text)
    text = "how often to look for a new champion, in seconds (%(default)s)"
    parser.add_argument("--poll", type=_number(1, 86_400), default=10, metavar="SECONDS", help=text)


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Declare the option that whatever runs a program has."""
    text = "threads of the program (default: as many as there are CPUs)"
    parser.add_argument("--threads", type=_number(0, 1024), default=0, metavar="N", help=text)


def options_of(arguments: argparse.Namespace) -> Options:
    """Return the options that were given."""
    return Options(
        host=arguments.host,
        port=arguments.port,
        grpc_port=arguments.grpc_port,
        threads=arguments.threads,
        max_batch=arguments.max_batch,
        max_delay=arguments.max_delay_ms / 1000,
        max_bytes=arguments.max_request * MIB,
        grace=arguments.grace,
        poll=arguments.poll,
    )


class _number:
    """A type for argparse: whole numbers from `least` to `most`."""

    def __init__(self, least: int, most: int) -> None:
        self._least, self._most = least, most

    def __call__(self, text: str) -> int:
        if not text.isdecimal() or not self._least <= int(text) <= self._most:
            raise argparse.ArgumentTypeError(f"{text} is not allowed; give {self._least} to {self._most:,}")
        return int(text)
