"""The verbs of `python pipeline.py`: what a user types, and how mistakes are told."""

import argparse
import errno
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from kfp.dsl.base_component import BaseComponent

from components.shared.errors import UserError
from runner import apply, doctor, local, logs, run, schedule, status, upload
from runner.package import compile_pipeline, warn_of_tags
from runner.parameters import parse_parameters

ROOT = Path(__file__).parents[1]
EXAMPLES = """examples:
  python pipeline.py local
  python pipeline.py local data=fashion-mnist epochs=5 min_accuracy=0.85
  python pipeline.py local data=file:///home/me/pictures image_size=32 seed=3
  python pipeline.py compile
  python pipeline.py doctor gpus=1
  python pipeline.py run epochs=30 gpus=1 --wait
  python pipeline.py schedule add nightly "0 2 * * *" data=https://example.org/pictures.zip
"""
# What the user can mend outside: space, permission, a folder that is none.
OUTSIDE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST}


def main(pipeline: BaseComponent, argv: Sequence[str] | None = None) -> None:
    """Run one verb and exit: 0 done, 1 our fault, 2 the user's mistake, 130 interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        sys.exit(_dispatch(pipeline, argv))
    except UserError as error:
        _fail(str(error), 2)
    except OSError as error:
        if error.errno not in OUTSIDE:
            raise
        _fail(f"{error.strerror}: {error.filename or 'the disk'}; make room or give another folder with --runs", 2)
    except KeyboardInterrupt:
        _fail("interrupted; nothing half-written is left", 130)


def _dispatch(pipeline: BaseComponent, argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    return int(arguments.handle(arguments, pipeline))


def _compile(arguments: argparse.Namespace, pipeline: BaseComponent) -> int:
    package = compile_pipeline(pipeline, arguments.output)
    warn_of_tags(package)
    print(package)
    return 0


def _local(arguments: argparse.Namespace, pipeline: BaseComponent) -> int:
    parameters = parse_parameters(pipeline, arguments.parameters)
    package = compile_pipeline(pipeline, ROOT / "build" / "pipeline.yaml")
    return local.run(package, parameters, arguments.runs, caching=not arguments.no_cache)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python pipeline.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    here = verbs.add_parser("local", help="compile the pipeline and run it on this machine")
    here.add_argument("parameters", nargs="*", metavar="name=value", help="parameters of the pipeline")
    here.add_argument("--runs", type=Path, default=ROOT / "runs", metavar="DIR", help="where runs are kept")
    here.add_argument("--no-cache", action="store_true", help="do every step, also where an earlier run has done it")
    compiling = verbs.add_parser("compile", help="write the compiled pipeline for the Kubeflow UI")
    compiling.add_argument("--output", type=Path, default=ROOT / "build" / "pipeline.yaml", metavar="FILE")
    here.set_defaults(handle=_local)
    compiling.set_defaults(handle=_compile)
    for verb in (upload, run, schedule, status, logs, doctor, apply):
        verb.add_parser(verbs)
    return parser


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
