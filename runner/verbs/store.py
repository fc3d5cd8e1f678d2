"""Verbs for what a store holds."""

import argparse
from pathlib import Path

from runner.verbs.options import DAYS, DEMO, Verb, add_store, count, days, port


def _models(parser: argparse.ArgumentParser) -> None:
    parser.epilog = """examples:
  python pipeline.py models
  python pipeline.py models promote mnist 3
  python pipeline.py models rollback mnist
  python pipeline.py models diff mnist 2 3
  python pipeline.py models prune --keep 5 --dry-run
  python pipeline.py models --store s3://bucket/prefix
"""
    add_store(parser)
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
    prune.add_argument("--keep", type=count, metavar="N", help="newest versions of each model to keep (default all)")
    text = f"minimum age of the checkpoints, prepared data and unfinished work to remove (default {DAYS:.0f})"
    prune.add_argument("--older-than", type=days, default=DAYS, metavar="DAYS", help=text)
    text = "minimum age of complete predictions to remove (default: they stay)"
    prune.add_argument("--predictions-older-than", type=days, metavar="DAYS", help=text)
    prune.add_argument("--dry-run", action="store_true", help="only list what would be removed")
    for action in actions.choices.values():
        add_store(action, argparse.SUPPRESS)


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
    add_store(parser)


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.epilog = """examples:
  python pipeline.py demo
  python pipeline.py demo mnist --versions 2 --port 8000
  python pipeline.py demo --store s3://bucket/prefix --output public --no-serve
"""
    text = "name of the model (default: the only one of the store, or mnist)"
    parser.add_argument("name", nargs="?", metavar="NAME", help=text)
    add_store(parser)
    text = "how many of the newest versions to offer, besides the champion (%(default)s)"
    parser.add_argument("--versions", type=count, default=5, metavar="N", help=text)
    parser.add_argument("--output", type=Path, default=DEMO, metavar="DIR", help="where to write it (build/demo)")
    parser.add_argument("--no-serve", action="store_true", help="only write it, for another web server")
    text = "the address to serve at (%(default)s: this machine alone)"
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help=text)
    text = "the port to serve at (%(default)s; 0: any that is free)"
    parser.add_argument("--port", type=port, default=8028, metavar="PORT", help=text)


VERBS = (
    Verb(
        "models",
        "registry.models",
        _models,
        "show the models in the store; promote, roll back, compare, prune",
    ),
    Verb("verify", "registry.verify", _verify, "recompute the digests of a version; exit code 1 if one differs"),
    Verb("lineage", "registry.verify", _lineage, "show what a version was made from: data, model, package"),
    Verb("demo", "demo.demo", _demo, "make a page on which one draws what a model classifies, and serve it here"),
)
