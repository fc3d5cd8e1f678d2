"""The verbs of `python pipeline.py`: what a user types, and how mistakes are told."""

import argparse
import difflib
import errno
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from kfp.compiler import Compiler
from kfp.dsl.base_component import BaseComponent

from components import steps
from components.shared.errors import UserError
from components.shared.images import is_pinned
from components.shared.parameters import check
from runner import local

ROOT = Path(__file__).parents[1]
EXAMPLES = """examples:
  python pipeline.py local
  python pipeline.py local data=fashion-mnist epochs=5 min_accuracy=0.85
  python pipeline.py local data=file:///home/me/pictures image_size=32 seed=3
  python pipeline.py compile
"""
TYPES: dict[str, type] = {"String": str, "Integer": int, "Float": float, "Boolean": bool, "List": list, "Dict": dict}
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


def compile_pipeline(pipeline: BaseComponent, output: Path) -> Path:
    """Compile the pipeline to a YAML file that appears whole, and return its path."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        fresh = Path(folder) / output.name
        Compiler().compile(pipeline, str(fresh))
        os.replace(fresh, output)
    return output


def parse_parameters(pipeline: BaseComponent, words: Sequence[str]) -> dict[str, Any]:
    """The value of every parameter of the pipeline: its default, or what a word `name=value` says.

    UserError for an unknown name, a value of the wrong type or out of its range, and a name given twice.
    """
    inputs = pipeline.component_spec.inputs
    given: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or name not in inputs:
            raise UserError(_unknown(word, name, list(inputs)))
        if name in given:
            raise UserError(f"{word}: {name} is given twice; keep one of them")
        given[name] = _value(name, text, _kind(inputs[name].type))
    parameters = {name: given.get(name, _kind(spec.type)(spec.default)) for name, spec in inputs.items()}
    check(**parameters)
    return parameters


def _dispatch(pipeline: BaseComponent, argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    if arguments.verb == "compile":
        if not is_pinned(steps.TORCH_IMAGE):
            print(
                f"warning: {steps.TORCH_IMAGE} has no known digest; `make push REGISTRY=...` pins it", file=sys.stderr
            )
        print(compile_pipeline(pipeline, arguments.output))
        return 0
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
    run = verbs.add_parser("local", help="compile the pipeline and run it on this machine")
    run.add_argument("parameters", nargs="*", metavar="name=value", help="parameters of the pipeline")
    run.add_argument("--runs", type=Path, default=ROOT / "runs", metavar="DIR", help="where runs are kept")
    run.add_argument("--no-cache", action="store_true", help="do every step, also where an earlier run has done it")
    compiling = verbs.add_parser("compile", help="write the compiled pipeline for the Kubeflow UI")
    compiling.add_argument("--output", type=Path, default=ROOT / "build" / "pipeline.yaml", metavar="FILE")
    return parser


def _unknown(word: str, name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"{word!r} is no parameter{hint}; give name=value with one of: {', '.join(names)}"


def _kind(type_name: str) -> type:
    """Python's type for KFP's name of it, such as Dict[String, String]."""
    return TYPES[type_name.partition("[")[0]]


def _value(name: str, text: str, kind: type) -> Any:
    words = {"true": True, "false": False}
    try:
        if kind in (list, dict):
            return _json(text, kind)
        return words[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        accepted = {
            int: "a whole number",
            float: "a number",
            bool: "true or false",
            list: "a JSON list",
            dict: "a JSON object",
        }[kind]
        raise UserError(f"{name}={text} is of the wrong type; give {accepted}") from None


def _json(text: str, kind: type) -> Any:
    value = json.loads(text)
    if not isinstance(value, kind):
        raise ValueError(text)
    return value


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
