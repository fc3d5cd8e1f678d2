"""Verbs of this machine."""

import argparse
from pathlib import Path

from runner.verbs.options import RUNS, Verb, add_graph, add_parameters


def _local(parser: argparse.ArgumentParser) -> None:
    add_parameters(parser)
    add_graph(parser)
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help="where runs are stored")
    parser.add_argument("--no-cache", action="store_true", help="run every step, even if an earlier run did it")


def _compile(parser: argparse.ArgumentParser) -> None:
    add_graph(parser, None)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write one pipeline to this file, not to build/")


def _s3(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help="where runs are stored")


VERBS = (
    Verb("local", "local.run", _local, "compile the pipeline and run it on this machine"),
    Verb("compile", "compile", _compile, "write the compiled pipelines for the Kubeflow UI"),
    Verb("s3", "local.s3_server", _s3, "keep the embedded S3 server running, to look at what it stores"),
)
