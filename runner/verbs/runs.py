"""Verbs for the runs in Kubeflow."""

import argparse

from runner.verbs.options import Verb, add_connection, add_graph, add_name, add_parameters, add_wait, days


def _status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", metavar="RUN", help="id of the run, or latest")
    _add_graphs(parser)


def _logs(parser: argparse.ArgumentParser) -> None:
    _add_run(parser)
    parser.add_argument("step", nargs="?", metavar="STEP", help="such as train; else all")
    parser.add_argument("--follow", action="store_true", help="go on until the run ends, with all nodes of a training")
    parser.add_argument("--times", action="store_true", help="show when each line was printed, if a pod tells")
    parser.add_argument("--all", action="store_true", help="show the lines of KFP and Argo, too")
    _add_graphs(parser)


def _stop(parser: argparse.ArgumentParser) -> None:
    parser.description = "Exit code: 0 it has ended and nothing of it is left, 1 it or its pods are not gone in time."
    _add_run(parser)
    _add_graphs(parser)


def _retry(parser: argparse.ArgumentParser) -> None:
    _add_run(parser)
    add_wait(parser)
    _add_graphs(parser)


def _rerun(parser: argparse.ArgumentParser) -> None:
    parser.epilog = """examples:
  python pipeline.py rerun latest epochs=40
  python pipeline.py rerun latest --graph sweep --wait
"""
    _add_run(parser)
    add_parameters(parser)
    add_name(parser)
    add_wait(parser)
    _add_graphs(parser)


def _archive(parser: argparse.ArgumentParser) -> None:
    parser.epilog = """examples:
  python pipeline.py archive --older-than 30
  python pipeline.py archive --undo 649d01cc-a538-436b-8402-1e279314a347
"""
    _add_old(parser, "id of a run, or latest")
    parser.add_argument("--undo", action="store_true", help="bring archived runs back")


def _delete(parser: argparse.ArgumentParser) -> None:
    parser.epilog = """examples:
  python pipeline.py delete --older-than 90
  python pipeline.py delete --versions --older-than 90
"""
    _add_old(parser, "id of a run, or latest; with --versions the name of a version")
    text = "delete uploaded versions, but for the newest and those that schedules run"
    parser.add_argument("--versions", action="store_true", help=text)


def _ui(parser: argparse.ArgumentParser) -> None:
    _add_browser(parser)
    add_connection(parser)


def _runs(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    action = actions.add_parser("open", help="open the page of a run")
    _add_run(action)
    _add_browser(action)
    _add_graphs(action)


def _add_browser(parser: argparse.ArgumentParser) -> None:
    text = "the port of this machine to forward, if the UI has no address (%(default)s)"
    parser.add_argument("--port", type=int, default=8080, metavar="N", help=text)
    parser.add_argument("--no-browser", action="store_true", help="only print the link")


def _add_old(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help=text)
    parser.add_argument("--older-than", type=days, metavar="DAYS", help="all that are older, instead of names")
    parser.add_argument("--yes", action="store_true", help="do not ask; without a terminal, nobody is asked")
    _add_graphs(parser)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="id of the run, or latest")


def _add_graphs(parser: argparse.ArgumentParser) -> None:
    add_graph(parser, None)
    add_connection(parser)


VERBS = (
    Verb("status", "control.status", _status, "show the latest runs in Kubeflow, or the steps of one"),
    Verb("logs", "control.logs", _logs, "print what the steps of a run in Kubeflow printed"),
    Verb("ui", "control.ui", _ui, "open Kubeflow's UI in the browser, through a port-forward if necessary"),
    Verb("runs", "control.ui", _runs, "open the page of a run in Kubeflow's UI"),
    Verb("stop", "control.stop", _stop, "terminate a run, and wait until its pods are gone"),
    Verb("retry", "control.retry", _retry, "run the failed steps of a run again, in the same run"),
    Verb("rerun", "control.rerun", _rerun, "start a run with the parameters of another, but for those named"),
    Verb("archive", "control.remove", _archive, "put runs out of sight in Kubeflow's UI, or bring them back"),
    Verb("delete", "control.remove", _delete, "delete runs, or uploaded versions"),
)
