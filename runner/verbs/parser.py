"""Parse the command line.

The module of a verb is imported only to do it: most verbs need KFP, which takes half a second to import, and help does
not.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any, NoReturn

from components.shared.core.printable import say, told
from runner.failures import USER_ERROR
from runner.verbs import cluster, local, prediction, runs, serving, store

VERBS = (*local.VERBS, *cluster.VERBS, *runs.VERBS, *store.VERBS, *prediction.VERBS, *serving.VERBS)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the words and options of a verb, with its `module`; exit for help. Raises WrongWords if they are wrong."""
    arguments, rest = _parser().parse_known_args(argv)
    # argparse takes the words before the first option, and leaves those after it.
    if rest and ("parameters" not in arguments or any(word.startswith("-") for word in rest)):
        _parser().error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.parameters = [*arguments.parameters, *rest]  # the list may be the parser's own default
    return arguments


@cache
def _parser() -> argparse.ArgumentParser:
    parser = _ExactParser(
        prog="python pipeline.py",
        description="Train, evaluate and export an image classifier, on this machine or in Kubeflow.",
        epilog="""examples:
  python pipeline.py local
  python pipeline.py local data=fashion-mnist epochs=5 min_accuracy=0.85
  python pipeline.py local data=file:///home/me/pictures image_size=32 seed=3
  python pipeline.py local --graph sweep 'settings=[{"learning_rate": 0.01}, {"learning_rate": 0.03}]'
  python pipeline.py models
  python pipeline.py compile
  python pipeline.py doctor gpus=1
  python pipeline.py run epochs=30 gpus=1 --wait
  python pipeline.py schedule add nightly "0 2 * * *" data=https://example.org/pictures.zip
""",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in VERBS:
        declared = verbs.add_parser(verb.name, help=verb.line, description=verb.line)
        declared.set_defaults(module=f"runner.{verb.module}")
        verb.declare(declared)
        _add_json(declared)
    return parser


def _add_json(parser: argparse.ArgumentParser, default: Any = False) -> None:
    """Add --json to a verb, and to each of its actions."""
    text = "print one JSON document, and all else on stderr"
    parser.add_argument("--json", action="store_true", default=default, help=text)
    parser.set_defaults(document=None)
    for actions in (one for one in parser._actions if isinstance(one, argparse._SubParsersAction)):
        for action in actions.choices.values():
            _add_json(action, argparse.SUPPRESS)


class WrongWords(SystemExit):
    """The end of a verb whose words or options are wrong, which was printed."""

    def __init__(self, message: str) -> None:
        super().__init__(USER_ERROR)
        self.message = message


class _ExactParser(argparse.ArgumentParser):
    """A parser, also of each verb, that refuses shortened options and shows its texts as they are."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, and end."""
        message = told(message)
        self.print_usage(sys.stderr)
        say(f"{self.prog}: error: {message}", file=sys.stderr)
        raise WrongWords(message)

    def format_help(self) -> str:
        """Return the help, with a list of the parameters if the verb takes any."""
        text = super().format_help()
        if self.get_default("parameters") is None:
            return text
        from components.shared.parameters.help import listed  # 0.15 s, most of it pydantic

        return f"{text}\n{listed(shutil.get_terminal_size().columns)}\n"
