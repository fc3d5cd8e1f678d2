"""The verbs of the command line: what each takes, and the module that does it.

That module is imported only to do it: most verbs need KFP, which takes half a second to import, and help does not.
"""

import argparse
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

DEFAULT = "training"  # the graph, if --graph does not name one
EXPERIMENT = os.environ.get("KF_PIPELINES_DEFAULT_EXPERIMENT_NAME", "torch2kubeflow")
MAX_CONCURRENCY = 10  # KFP's limit on concurrent runs of one recurring run
RUNS = Path(__file__).parents[1] / "runs"
DAYS = 7.0  # minimum age of what `models prune` removes


class Verb(NamedTuple):
    """A verb: its name, the module of runner/ whose function `handle` does it, its words and options, its purpose."""

    name: str
    module: str
    declare: Callable[[argparse.ArgumentParser], None]
    line: str


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the words and options of a verb, with its `module`. Exits for help, and if they are wrong."""
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
    arguments, rest = parser.parse_known_args(argv)
    # argparse takes the words before the first option, and leaves those after it.
    if rest and ("parameters" not in arguments or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.parameters += rest
    return arguments


class _ExactParser(argparse.ArgumentParser):
    """A parser, also of each verb, that refuses shortened options and shows its texts as they are."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def format_help(self) -> str:
        """Return the help, with a list of the parameters if the verb takes any."""
        text = super().format_help()
        if self.get_default("parameters") is None:
            return text
        from components.shared.parameters.help import listed  # 0.15 s, most of it pydantic

        return f"{text}\n{listed(shutil.get_terminal_size().columns)}\n"


def _local(parser: argparse.ArgumentParser) -> None:
    _add_parameters(parser)
    _add_graph(parser)
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help="where runs are stored")
    parser.add_argument("--no-cache", action="store_true", help="run every step, even if an earlier run did it")


def _compile(parser: argparse.ArgumentParser) -> None:
    _add_graph(parser, None)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write one pipeline to this file, not to build/")


def _upload(parser: argparse.ArgumentParser) -> None:
    _add_graph(parser)
    _add_connection(parser)


def _run(parser: argparse.ArgumentParser) -> None:
    parser.description = "Exit code: 0 success, 1 failed, 2 a mistake to fix, 3 canceled, 130 interrupted."
    parser.epilog = """examples:
  python pipeline.py run                          # the present code, uploaded if necessary
  python pipeline.py run epochs=30 gpus=1 --wait
  python pipeline.py run --wait --retries 3       # on nodes that may be preempted
  python pipeline.py run --version v1.2-0123456789ab seed=7
  python pipeline.py run --graph sweep gpus=1 'settings=[{"learning_rate": 0.01}, {"network": "resnet18"}]'
"""
    _add_parameters(parser)
    parser.add_argument("--version", metavar="NAME", help="run this uploaded version, not the present code")
    text = "the experiment that the run belongs to (%(default)s)"
    parser.add_argument("--experiment", default=EXPERIMENT, metavar="NAME", help=text)
    parser.add_argument("--pipeline-root", metavar="URI", help="where KFP stores the artifacts, instead of its default")
    parser.add_argument("--wait", action="store_true", help="show the steps and wait for the end")
    text = "wait, and have KFP retry it that often if it fails"
    parser.add_argument("--retries", type=int, default=0, metavar="N", help=text)
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help="where summaries are stored")
    _add_graph(parser)
    _add_connection(parser)


def _schedule(parser: argparse.ArgumentParser) -> None:
    parser.epilog = """examples:
  python pipeline.py schedule add nightly "0 2 * * *" data=fashion-mnist min_accuracy=0.85
  python pipeline.py schedule add often "every 6h" --follow-latest
  python pipeline.py schedule pause nightly
  python pipeline.py schedule audit
"""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _schedule_add(actions.add_parser("add", help="create a recurring run"))
    listing = actions.add_parser("list", help="show the recurring runs of the namespace, and when each runs next")
    _add_time_zone(listing)
    for name, line in (
        ("pause", "start no further runs"),
        ("resume", "start runs again"),
        ("remove", "delete it; an active run continues"),
    ):
        action = actions.add_parser(name, help=line)
        action.add_argument("name", metavar="NAME", help="name or id of the recurring run")
    _add_time_zone(actions.choices["resume"])
    line = "show the problems of the recurring runs; exit code 1 if there are any"
    _add_time_zone(actions.add_parser("audit", help=line, description=line))
    for action in actions.choices.values():
        _add_connection(action)


def _schedule_add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="its name, which must be unused")
    text = "a crontab's five fields, in UTC unless KFP is set to another time zone; @daily; or 'every 6h'"
    parser.add_argument("when", metavar="WHEN", help=text)
    _add_parameters(parser)
    version = parser.add_mutually_exclusive_group()
    version.add_argument("--version", metavar="NAME", help="pin this uploaded version, not the present code")
    version.add_argument("--follow-latest", action="store_true", help="each run uses the version uploaded last")
    parser.add_argument("--catch-up", action="store_true", help="after a pause, run every time that was missed")
    counts = range(1, MAX_CONCURRENCY + 1)
    text = f"concurrent runs, 1 to {MAX_CONCURRENCY} (%(default)s)"
    parser.add_argument("--max-concurrency", type=int, choices=counts, default=1, metavar="N", help=text)
    _add_graph(parser)
    _add_time_zone(parser)


def _status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", metavar="RUN", help="id of the run, or latest")
    _add_graph(parser, default=None)
    _add_connection(parser)


def _logs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="id of the run, or latest")
    parser.add_argument("step", nargs="?", metavar="STEP", help="such as train; else all")
    _add_graph(parser, default=None)
    _add_connection(parser)


def _doctor(parser: argparse.ArgumentParser) -> None:
    parser.description = """Find what would make a first run fail, and suggest a remedy for each problem.

It changes nothing: it writes only to S3, under a name of its own that it removes, and asks the cluster to admit a pod
as a dry run. Without access to a cluster, it still asks the registries for the images.
"""
    parser.epilog = """examples:
  python pipeline.py doctor
  python pipeline.py doctor gpus=1 train_memory=16Gi --namespace my-profile
  python pipeline.py doctor store=s3://bucket/prefix --s3-endpoint https://s3.example.org

exit code: 1 if a problem was found that would make such a run fail, otherwise 0;
warnings, and what could not be checked, do not count
"""
    _add_parameters(parser)
    text = "where this machine reaches the pods' S3 server, if not at its own address or by a port-forward"
    parser.add_argument("--s3-endpoint", default="", metavar="URL", help=text)
    _add_graph(parser)
    _add_connection(parser)


def _apply(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--file", type=Path, required=True, metavar="FILE", help="such as deploy.yaml")
    parser.add_argument("--dry-run", action="store_true", help="only show what would be done")
    _add_time_zone(parser)
    _add_graph(parser)
    _add_connection(parser)


def _models(parser: argparse.ArgumentParser) -> None:
    parser.epilog = """examples:
  python pipeline.py models
  python pipeline.py models promote mnist 3
  python pipeline.py models rollback mnist
  python pipeline.py models diff mnist 2 3
  python pipeline.py models prune --keep 5 --dry-run
  python pipeline.py models --store s3://bucket/prefix
"""
    _add_store(parser)
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("list", help="show versions, champions and metrics")
    promote = actions.add_parser("promote", help="make a version the champion")
    rollback = actions.add_parser("rollback", help="make the previous champion the champion again")
    diff = actions.add_parser("diff", help="show how two versions differ")
    for action in (promote, rollback, diff):
        action.add_argument("name", metavar="NAME", help="name of the model")
    for action in (promote, diff):
        action.add_argument("version", type=int, metavar="VERSION")
    diff.add_argument("other", type=int, metavar="OTHER")
    prune = actions.add_parser("prune", help="remove unneeded versions, and leftovers of interrupted runs")
    prune.add_argument("--keep", type=_count, metavar="N", help="newest versions of each model to keep (default all)")
    text = f"minimum age of the checkpoints, prepared data and unfinished uploads to remove (default {DAYS:.0f})"
    prune.add_argument("--older-than", type=_days, default=DAYS, metavar="DAYS", help=text)
    prune.add_argument("--dry-run", action="store_true", help="only list what would be removed")
    for action in actions.choices.values():
        _add_store(action, argparse.SUPPRESS)


def _verify(parser: argparse.ArgumentParser) -> None:
    _lineage(parser)
    text = "also prepare the data and train again, and compare the weights"
    parser.add_argument("--retrain", action="store_true", help=text)


def _lineage(parser: argparse.ArgumentParser) -> None:
    parser.epilog = """examples:
  python pipeline.py verify mnist/3
  python pipeline.py verify s3://bucket/prefix/models/mnist/versions/3 --retrain
  python pipeline.py lineage mnist/3
"""
    parser.add_argument("address", metavar="VERSION", help="NAME/VERSION, or its s3:// address")
    _add_store(parser)


def _s3(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help="where runs are stored")


def _add_parameters(parser: argparse.ArgumentParser) -> None:
    text = "parameters of the pipeline, listed below"
    parser.add_argument("parameters", nargs="*", default=[], metavar="name=value", help=text)


def _add_connection(parser: argparse.ArgumentParser) -> None:
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
    group.add_argument("--cookie-file", type=Path, metavar="FILE", help="a session's cookie [the cookie: KFP_COOKIE]")
    group.add_argument(
        "--ca", type=Path, metavar="FILE", help="authorities that sign KFP's certificate [SSL_CERT_FILE]"
    )


def _add_graph(parser: argparse.ArgumentParser, default: str | None = DEFAULT) -> None:
    text = f"the pipeline: training, sweep or another of pipeline.py ({default or 'else all'})"
    parser.add_argument("--graph", default=default, metavar="NAME", help=text)


def _add_store(parser: argparse.ArgumentParser, default: Any = None) -> None:
    text = "the store (default: that of `make run`)"
    parser.add_argument("--store", default=default, metavar="s3://BUCKET/PREFIX", help=text)
    parser.add_argument("--runs", type=Path, default=default or RUNS, metavar="DIR", help="folder of the local runs")


def _add_time_zone(parser: argparse.ArgumentParser) -> None:
    text = "the time zone in which KFP reads crontabs, instead of the cluster's setting or UTC"
    parser.add_argument("--time-zone", metavar="NAME", help=text)


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is not a number of versions; give 1 or more")
    return int(text)


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1
    if not 0 <= days < 36_500:
        raise argparse.ArgumentTypeError(f"{text} is not a number of days; give 0 or more")
    return days


VERBS = (
    Verb("local", "local.run", _local, "compile the pipeline and run it on this machine"),
    Verb("compile", "compile", _compile, "write the compiled pipelines for the Kubeflow UI"),
    Verb("upload", "cluster.upload", _upload, "upload the pipeline to Kubeflow, unless the same content is there"),
    Verb("run", "cluster.run", _run, "run the pipeline in Kubeflow"),
    Verb("schedule", "schedules.schedule", _schedule, "run the pipeline in Kubeflow at recurring times"),
    Verb("status", "cluster.status", _status, "show the latest runs in Kubeflow, or the steps of one"),
    Verb("logs", "cluster.logs", _logs, "print the logs of the steps of a run in Kubeflow"),
    Verb("doctor", "doctor.doctor", _doctor, "find what would make a first run fail, and suggest a remedy"),
    Verb("apply", "schedules.apply", _apply, "make the pipeline's version and schedules in Kubeflow match a file"),
    Verb(
        "models",
        "registry.models",
        _models,
        "show the models in the store; promote, roll back, compare and prune versions",
    ),
    Verb("verify", "registry.verify", _verify, "recompute the digests of a version; exit code 1 if one differs"),
    Verb("lineage", "registry.verify", _lineage, "show what a version was made from: data, model, package"),
    Verb("s3", "local.s3_server", _s3, "keep the embedded S3 server running, to look at what it stores"),
)
