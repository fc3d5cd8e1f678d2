"""The options that several verbs have, and their defaults."""

import argparse
import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from components.shared.core.errors import UserError

DEFAULT = "training"  # the graph, if --graph does not name one
EXPERIMENT = os.environ.get("KF_PIPELINES_DEFAULT_EXPERIMENT_NAME", "torch2kubeflow")
MAX_CONCURRENCY = 10  # KFP's limit on concurrent runs of one recurring run
RUNS = Path(__file__).parents[2] / "runs"
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
DEMO = RUNS.with_name("build") / "demo"
DAYS = 7.0  # minimum age of what `models prune` removes


class Verb(NamedTuple):
    """A verb: its name, the module of runner/ whose function `handle` does it, its words and options, its purpose."""

    name: str
    module: str
    declare: Callable[[argparse.ArgumentParser], None]
    line: str


def make_folder(folder: Path, remedy: str, mode: int = 0o777) -> None:
    """Create a folder. Raises UserError with the remedy if nothing can be written there."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno not in (*UNWRITABLE, errno.ENOENT, errno.ENOTDIR, errno.EEXIST):  # ENOENT: of /proc
            raise
        raise UserError(f"nothing can be written to {folder}", remedy) from None


def make_runs_folder(runs: Path) -> None:
    """Create the folder that --runs names, for the user alone. Raises UserError if nothing can be written there."""
    make_folder(runs, "give another folder with --runs DIR", 0o700)


def add_parameters(parser: argparse.ArgumentParser) -> None:
    text = "parameters of the pipeline, listed below"
    parser.add_argument("parameters", nargs="*", default=[], metavar="name=value", help=text)


def add_connection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("connection", "Without --host, a port-forward through the Kubernetes API.")
    group.add_argument("--host", metavar="URL", help="KFP's address, with https:// [KF_PIPELINES_ENDPOINT]")
    group.add_argument("--namespace", metavar="NAME", help="where runs live, if KFP has many users [KFP_NAMESPACE]")
    group.add_argument("--context", metavar="NAME", help="the context of the kubeconfig, instead of the current one")
    group.add_argument("--kfp-namespace", default="kubeflow", metavar="NAME", help="where KFP lives (%(default)s)")
    group.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="a Bearer token, read again for each request [KF_PIPELINES_SA_TOKEN_PATH; the token: KFP_EXISTING_TOKEN]",
    )
    group.add_argument(
        "--cookie-file", type=Path, metavar="FILE", help="a session's cookie, read again as the token is [KFP_COOKIE]"
    )
    group.add_argument(
        "--ca", type=Path, metavar="FILE", help="authorities that sign KFP's certificate [SSL_CERT_FILE]"
    )


def add_graph(parser: argparse.ArgumentParser, default: str | None = DEFAULT) -> None:
    text = f"the pipeline: training, sweep or another of pipeline.py ({default or 'else all'})"
    parser.add_argument("--graph", default=default, metavar="NAME", help=text)


def add_store(parser: argparse.ArgumentParser, default: Any = None) -> None:
    """Add the options that name a store; `default` is SUPPRESS for actions of a verb that has them too."""
    text = "the store (default: that of `make run`)"
    parser.add_argument("--store", default=default, metavar="s3://BUCKET/PREFIX", help=text)
    parser.add_argument("--runs", type=Path, default=default or RUNS, metavar="DIR", help="folder of the local runs")
    line = "For a store that AWS's variables do not describe: the keys of its pods, through the Kubernetes API."
    group = parser.add_argument_group("a cluster", line)
    for option, value, text in (
        ("--context", None, "the context of the kubeconfig, instead of the current one"),
        ("--namespace", None, "the namespace of the runs, such as a Profile [KFP_NAMESPACE]"),
        ("--kfp-namespace", "kubeflow", "where KFP lives, and runs if it has one user (%(default)s)"),
        ("--s3-secret", "torch2kubeflow-s3", "the Secret with the keys (%(default)s)"),
        ("--s3-config", "torch2kubeflow-s3", "the ConfigMap with the server's address (%(default)s)"),
    ):
        text = text if default is None else text.replace(" (%(default)s)", f" ({value})")
        group.add_argument(option, default=default or value, metavar="NAME", help=text)


def add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", metavar="NAME", help="the run's name, instead of the pipeline's with the time")
    parser.add_argument("--description", metavar="TEXT", help="what Kubeflow's UI shows beside the run's name")
    parser.add_argument("--label", "--labels", type=_no_label, help=argparse.SUPPRESS)


def _no_label(text: str) -> str:
    raise argparse.ArgumentTypeError(f"{text} cannot be kept: KFP has no labels of runs; give --name or --description")


def add_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wait", action="store_true", help="show the steps and wait for the end")
    text = "wait, and have KFP retry it that often if it fails"
    parser.add_argument("--retries", type=int, default=0, metavar="N", help=text)
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help="where summaries are stored")


def add_time_zone(parser: argparse.ArgumentParser) -> None:
    text = "the time zone in which KFP reads crontabs, instead of the cluster's setting or UTC"
    parser.add_argument("--time-zone", metavar="NAME", help=text)


def count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is not a number of versions; give 1 or more")
    return int(text)


def days(text: str) -> float:
    return _number(text, 36_500, "a number of days; give 0 or more")


def percents(text: str) -> tuple[int, ...]:
    """Return shares of the traffic, each larger than the one before; none for 0."""
    words = text.split(",")
    found = tuple(int(word) for word in words if word.isdecimal())
    if len(found) < len(words) or [*found] != sorted({*found}) or not 0 <= found[0] <= found[-1] <= 99:
        raise argparse.ArgumentTypeError(f"{text} is no list of growing percents, such as 10,50; give 0 to 99")
    return tuple(percent for percent in found if percent)


def seconds(text: str) -> float:
    return _number(text, 1_000_000, "a number of seconds; give 0 or more")


def psi(text: str) -> float:
    return _number(text, 1_000_000, "a population stability index; give 0 or more, such as 0.2")


def _number(text: str, end: float, wanted: str) -> float:
    """Return the number from 0 to below `end` that a text is."""
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number < end:
        raise argparse.ArgumentTypeError(f"{text} is not {wanted}")
    return number


def port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text} is not a port; give 0 to 65535")
    return int(text)
