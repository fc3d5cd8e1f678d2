"""Verbs for the runs in Kubeflow."""

import argparse

from runner.verbs.options import Verb, add_connection, add_graph


def _status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", metavar="RUN", help="id of the run, or latest")
    add_graph(parser, None)
    add_connection(parser)


def _logs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="id of the run, or latest")
    parser.add_argument("step", nargs="?", metavar="STEP", help="such as train; else all")
    add_graph(parser, None)
    add_connection(parser)


VERBS = (
    Verb("status", "cluster.status", _status, "show the latest runs in Kubeflow, or the steps of one"),
    Verb("logs", "cluster.logs", _logs, "print the logs of the steps of a run in Kubeflow"),
)
