"""The command line `python pipeline.py VERB`: runs the verb, and reports its errors."""

import argparse
import os
import select
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from pkgutil import resolve_name
from types import FrameType
from typing import Any, TextIO

from components.shared.core.errors import UserError
from components.shared.core.printable import printable_json, say
from runner.failures import INTERRUPTED, USER_ERROR, find_user_error
from runner.verbs.parser import WrongWords, parse

CLOSED_PIPE = 128 + signal.SIGPIPE  # the exit code that shells show of programs that the signal ends
GRAPHS = (
    "training",
    "sweep",
    "distributed",
    "prediction",
)  # of pipeline.py here; a user's own may have other parameters
Graphs = Callable[[], Mapping[str, Any]]  # makes the pipelines, by the names for `--graph`


def main(graphs: Graphs, argv: Sequence[str] | None = None) -> None:
    """Run one verb, and exit: 0 done, 1 failed, 2 the user's mistake, 130 interrupted, 141 nobody reads the output."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        try:
            code = _run(graphs, argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _is_closed(sys.stdout) and not _is_closed(sys.stderr):
            raise
        for stream in (sys.stdout, sys.stderr):  # else Python fails again when it flushes them at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        code = CLOSED_PIPE
    sys.exit(code)


def _run(graphs: Graphs, argv: Sequence[str] | None) -> int:
    """Run one verb and return the exit code; with --json, print nothing but its document on stdout."""
    try:
        arguments = parse(argv)
    except WrongWords as wrong:
        if "--json" in (sys.argv[1:] if argv is None else argv):
            _print_document(_document_of(UserError(wrong.message, "see --help"), USER_ERROR))
        raise
    with redirect_stdout(sys.stderr) if arguments.json else nullcontext():
        code = _handle(arguments, graphs)
    if arguments.json and arguments.document:
        _print_document(arguments.document)
    return code


def _print_document(document: Any) -> None:
    sys.stdout.write(printable_json(document.to_json().decode()))


def _handle(arguments: argparse.Namespace, graphs: Graphs) -> int:
    try:
        _check_words(arguments)
        handle = resolve_name(f"{arguments.module}:handle")
        return int(handle(arguments, *_chosen(arguments, graphs)))
    except KeyboardInterrupt:
        return _failed(arguments, UserError("interrupted; nothing half-written is left"), INTERRUPTED)
    except BrokenPipeError:
        raise
    except Exception as error:
        user_error = find_user_error(error)
        if not user_error:
            raise
        return _failed(arguments, user_error, USER_ERROR)


def _check_words(arguments: argparse.Namespace) -> None:
    """Refuse mistakes in the parameters of a graph here before KFP is imported; versions in KFP may have others."""
    words, graph = getattr(arguments, "parameters", None), getattr(arguments, "graph", None)
    is_of_version = arguments.verb == "rerun" or getattr(arguments, "version", None)
    if words and graph in GRAPHS and not is_of_version and not getattr(arguments, "follow_latest", False):
        from runner.words import names_in, parse_words  # pydantic takes time, and most verbs need none

        parse_words(graph, words, names_in(graph))


def _is_closed(stream: TextIO) -> bool:
    """Return whether a stream is a pipe that nobody reads any more, as that of `| head`."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


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


def _failed(arguments: argparse.Namespace, error: UserError, code: int) -> int:
    say(f"error: {error}", file=sys.stderr)
    if arguments.json:
        arguments.document = _document_of(error, code)
    return code


def _document_of(error: UserError, code: int) -> Any:
    from runner.answer import ErrorDocument  # pydantic takes time, and most verbs need none

    return ErrorDocument.of(error, code)
