"""Verbs that start runs in Kubeflow, now or at recurring times, and prepare for it."""

import argparse
from pathlib import Path

from runner.verbs.options import (
    EXPERIMENT,
    MAX_CONCURRENCY,
    Verb,
    add_connection,
    add_graph,
    add_name,
    add_parameters,
    add_time_zone,
    add_wait,
)


def _upload(parser: argparse.ArgumentParser) -> None:
    add_graph(parser)
    add_connection(parser)


def _run(parser: argparse.ArgumentParser) -> None:
    parser.description = "Exit code: 0 success, 1 failed, 2 a mistake to fix, 3 canceled, 130 interrupted."
    parser.epilog = """examples:
  python pipeline.py run                          # the present code, uploaded if necessary
  python pipeline.py run epochs=30 gpus=1 --wait
  python pipeline.py run --wait --retries 3       # on nodes that may be preempted
  python pipeline.py run --version v1.2-0123456789ab seed=7
  python pipeline.py run --graph sweep gpus=1 'settings=[{"learning_rate": 0.01}, {"network": "resnet18"}]'
"""
    add_parameters(parser)
    add_name(parser)
    parser.add_argument("--version", metavar="NAME", help="run this uploaded version, not the present code")
    text = "the experiment that the run belongs to (%(default)s)"
    parser.add_argument("--experiment", default=EXPERIMENT, metavar="NAME", help=text)
    parser.add_argument("--pipeline-root", metavar="URI", help="where KFP stores the artifacts, instead of its default")
    add_wait(parser)
    add_graph(parser)
    add_connection(parser)


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
    add_time_zone(listing)
    for name, line in (
        ("pause", "start no further runs"),
        ("resume", "start runs again"),
        ("remove", "delete it; an active run continues"),
    ):
        action = actions.add_parser(name, help=line)
        action.add_argument("name", metavar="NAME", help="name or id of the recurring run")
    add_time_zone(actions.choices["resume"])
    line = "show the problems of the recurring runs; exit code 1 if there are any"
    add_time_zone(actions.add_parser("audit", help=line, description=line))
    for action in actions.choices.values():
        add_connection(action)


def _schedule_add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="its name, which must be unused")
    text = "a crontab's five fields, in UTC unless KFP is set to another time zone; @daily; or 'every 6h'"
    parser.add_argument("when", metavar="WHEN", help=text)
    add_parameters(parser)
    version = parser.add_mutually_exclusive_group()
    version.add_argument("--version", metavar="NAME", help="pin this uploaded version, not the present code")
    version.add_argument("--follow-latest", action="store_true", help="each run uses the version uploaded last")
    parser.add_argument("--catch-up", action="store_true", help="after a pause, run every time that was missed")
    counts = range(1, MAX_CONCURRENCY + 1)
    text = f"concurrent runs, 1 to {MAX_CONCURRENCY} (%(default)s)"
    parser.add_argument("--max-concurrency", type=int, choices=counts, default=1, metavar="N", help=text)
    add_graph(parser)
    add_time_zone(parser)


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
    add_parameters(parser)
    text = "where this machine reaches the pods' S3 server, if not at its own address or by a port-forward"
    parser.add_argument("--s3-endpoint", default="", metavar="URL", help=text)
    add_graph(parser)
    add_connection(parser)


def _apply(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--file", type=Path, required=True, metavar="FILE", help="such as deploy.yaml")
    parser.add_argument("--dry-run", action="store_true", help="only show what would be done")
    add_time_zone(parser)
    add_graph(parser)
    add_connection(parser)


VERBS = (
    Verb("upload", "cluster.upload", _upload, "upload the pipeline to Kubeflow, unless the same content is there"),
    Verb("run", "cluster.run", _run, "run the pipeline in Kubeflow"),
    Verb("schedule", "schedules.schedule", _schedule, "run the pipeline in Kubeflow at recurring times"),
    Verb("doctor", "doctor.doctor", _doctor, "find what would make a first run fail, and suggest a remedy"),
    Verb("apply", "schedules.apply", _apply, "make the pipeline's version and schedules in Kubeflow match a file"),
)
