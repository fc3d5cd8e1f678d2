"""Verbs that use a model."""

import argparse
from pathlib import Path

from components.shared.model_server.options import add_threads
from runner.verbs.options import Verb, add_store, psi


def _predict(parser: argparse.ArgumentParser) -> None:
    parser.epilog = """examples:
  python pipeline.py predict photos/
  python pipeline.py predict digit.png --model mnist
  python pipeline.py predict https://example.org/scans.zip --model mnist/3 --output scans
  python pipeline.py predict photos/ --model runs/latest/package
"""
    text = "the pictures: a picture, a folder, an archive, a prepared dataset, a URI, or the name of a data set"
    parser.add_argument("data", metavar="DATA", help=text)
    text = "NAME (its champion), NAME/VERSION, its s3:// address, or a package's folder (default: the only model)"
    parser.add_argument("--model", metavar="MODEL", help=text)
    text = "a new or empty folder, or that of an interrupted run of the same (%(default)s)"
    parser.add_argument("--output", type=Path, default=Path("predictions"), metavar="DIR", help=text)
    parser.add_argument("--labels", metavar="FILE.csv", help="a CSV in the source that has the classes of the pictures")
    add_threads(parser)
    text = "population stability index above which a difference from the model's test images is drift (default: 0.2)"
    parser.add_argument("--drift-threshold", type=psi, metavar="PSI", help=text)
    add_store(parser)


VERBS = (Verb("predict", "prediction.predict", _predict, "predict pictures by a registered model: a table of them"),)
