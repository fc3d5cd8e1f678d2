"""The command line `python pipeline.py VERB`: runs the verb, and reports its errors."""

import argparse
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pkgutil import resolve_name
from types import FrameType
from typing import Any

from components.shared.core.errors import UserError
from runner.failures import INTERRUPTED, USER_ERROR, find_user_error
from runner.verbs import parse

Graphs = Callable[[], Mapping[str, Any]]  # makes the pipelines, by the names for `--graph`


def main(graphs: Graphs, argv: Sequence[str] | None = None) -> None:
    """Run one verb, and exit: 0 done, 1 failed, 2 the user's mistake, 130 interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        arguments = parse(argv)
        handle = resolve_name(f"{arguments.module}:handle")
        sys.exit(handle(arguments, *_chosen(arguments, graphs)))
    except KeyboardInterrupt:
        _fail("interrupted; nothing half-written is left", INTERRUPTED)
    except Exception as error:
        user_error = find_user_error(error)
        if not user_error:
            raise
        _fail(str(user_error), USER_ERROR)


def _chosen(arguments: argparse.Namespace, graphs: Graphs) -> list[Any]:
    """Return the pipeline that --graph names, or all; none for a verb without --graph, which needs none."""
    if "graph" not in arguments:
        return []
    pipelines = graphs()
    if arguments.graph is None:
        return [*pipelines.values()]
    if arguments.graph not in pipelines:
        raise UserError(f"--graph {arguments.graph} does not exist", f"give {' or '.join(pipelines)}")
    return [pipelines[arguments.graph]]


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
