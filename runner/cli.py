"""The command line `python pipeline.py VERB`: its verbs, and how their errors are reported."""

import argparse
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from kfp.dsl.base_component import BaseComponent

from components.shared.core.errors import UserError
from runner.cluster import logs, run, status, upload
from runner.compile import compile_pipeline, package_of, read_package, warn_of_tags
from runner.doctor import doctor
from runner.failures import INTERRUPTED, USER_ERROR, find_user_error
from runner.graphs import DEFAULT, add_graph_option, choose
from runner.local import run as local_run
from runner.local import s3_server
from runner.parameters import parse_parameters
from runner.registry import models, verify
from runner.schedules import apply, schedule

EXAMPLES = """examples:
  python pipeline.py local
  python pipeline.py local data=fashion-mnist epochs=5 min_accuracy=0.85
  python pipeline.py local data=file:///home/me/pictures image_size=32 seed=3
  python pipeline.py local --graph sweep 'settings=[{"learning_rate": 0.01}, {"learning_rate": 0.03}]'
  python pipeline.py models
  python pipeline.py compile
  python pipeline.py doctor gpus=1
  python pipeline.py run epochs=30 gpus=1 --wait
  python pipeline.py schedule add nightly "0 2 * * *" data=https://example.org/pictures.zip
"""


def main(graphs: Mapping[str, BaseComponent], argv: Sequence[str] | None = None) -> None:
    """Run one verb with the pipelines by name, and exit: 0 done, 1 failed, 2 the user's mistake, 130 interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        sys.exit(_dispatch(graphs, argv))
    except KeyboardInterrupt:
        _fail("interrupted; nothing half-written is left", INTERRUPTED)
    except Exception as error:
        user_error = find_user_error(error)
        if not user_error:
            raise
        _fail(str(user_error), USER_ERROR)


def _dispatch(graphs: Mapping[str, BaseComponent], argv: Sequence[str] | None) -> int:
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    # argparse takes the words before the first option, and leaves those after it.
    if rest and (not hasattr(arguments, "parameters") or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.parameters += rest
    if arguments.verb == "compile":
        return _compile(arguments, graphs)
    return int(arguments.handle(arguments, choose(graphs, getattr(arguments, "graph", DEFAULT))))


def _compile(arguments: argparse.Namespace, graphs: Mapping[str, BaseComponent]) -> int:
    """Write the pipeline of --graph, or all of them; to --output, or each to its own file."""
    if arguments.output:
        _check_output(arguments.output)
        chosen = [choose(graphs, arguments.graph or DEFAULT)]
    else:
        chosen = [choose(graphs, arguments.graph)] if arguments.graph else list(graphs.values())
    packages = [compile_pipeline(pipeline, arguments.output or package_of(pipeline)) for pipeline in chosen]
    warn_of_tags([document for package in packages for document in read_package(package)])
    print("\n".join(map(str, packages)))
    return 0


def _check_output(output: Path) -> None:
    if output.is_dir():
        raise UserError(f"--output {output} is a folder", f"name a file, such as {output / 'pipeline.yaml'}")
    if output.suffix not in (".yaml", ".yml"):
        raise UserError(f"--output {output} is no YAML file", "give a name that ends in .yaml")


def _local(arguments: argparse.Namespace, pipeline: BaseComponent) -> int:
    given = parse_parameters(pipeline, arguments.parameters)
    embedded = given.get("store", s3_server.STORE) == s3_server.STORE
    return local_run.run(pipeline, given, arguments.runs, embedded=embedded, caching=not arguments.no_cache)


class _ExactParser(argparse.ArgumentParser):
    """A parser, also of each verb, that refuses shortened options."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)


def _parser() -> argparse.ArgumentParser:
    parser = _ExactParser(
        prog="python pipeline.py",
        description="Train, evaluate and export an image classifier, on this machine or in Kubeflow.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    here = verbs.add_parser("local", help="compile the pipeline and run it on this machine")
    here.add_argument("parameters", nargs="*", metavar="name=value", help="parameters of the pipeline")
    add_graph_option(here)
    here.add_argument("--runs", type=Path, default=s3_server.RUNS, metavar="DIR", help="where runs are stored")
    here.add_argument("--no-cache", action="store_true", help="run every step, even if an earlier run did it")
    here.set_defaults(handle=_local)
    compiling = verbs.add_parser("compile", help="write the compiled pipelines for the Kubeflow UI")
    add_graph_option(compiling, None)
    compiling.add_argument("--output", type=Path, metavar="FILE", help="write one pipeline to this file, not to build/")
    for verb in (upload, run, schedule, status, logs, doctor, apply, models, verify, s3_server):
        verb.add_parser(verbs)
    return parser


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
