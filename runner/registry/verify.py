"""Verbs `verify` and `lineage`: whether a version is what it says, and what it was made from."""

import argparse
import re
import tempfile
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

from kfp.dsl.base_component import BaseComponent

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.core.files import Document, read_json, sha256_without
from components.shared.core.version import code_version
from components.shared.data.dataset import open_dataset
from components.shared.evaluation.exported_model import read_package
from components.shared.registry.registry import RegisteredModel
from runner.local.s3_server import store_of
from runner.registry.models import add_store_options, existing

ADDRESS = re.compile(r"(?:(?P<store>s3://.+)/models/)?(?P<name>[^/]+)/(?:versions/)?(?P<version>\d+)/?")
EXAMPLES = """examples:
  python pipeline.py verify mnist/3
  python pipeline.py verify s3://bucket/prefix/models/mnist/versions/3 --retrain
  python pipeline.py lineage mnist/3
"""


def add_parser(verbs: Any) -> None:
    """Add both verbs to the command line."""
    verifying = _add(verbs, "verify", _verify, "recompute the digests of a version; exit code 1 if one differs")
    says = "prepare the data and train again, too, and compare the weights"
    verifying.add_argument("--retrain", action="store_true", help=says)
    _add(verbs, "lineage", _lineage, "show what a version was made from: data, model, package")


def handle(arguments: argparse.Namespace, _: BaseComponent) -> int:
    """Do it, and return the exit code."""
    found = ADDRESS.fullmatch(arguments.address)
    if not found:
        raise UserError(
            f"{arguments.address} is no version; give NAME/VERSION or s3://.../models/NAME/versions/VERSION"
        )
    if found["store"] and arguments.store:
        raise UserError("--store and a version with a store of its own exclude each other; leave one out")
    with store_of(found["store"] or arguments.store, arguments.runs) as store:
        code: int = arguments.act(arguments, existing(store, found["name"]), int(found["version"]))
    return code


def _add(verbs: Any, name: str, act: Any, says: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=says, description=says, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("address", metavar="VERSION", help="NAME/VERSION, or its s3:// address")
    add_store_options(parser)
    parser.set_defaults(handle=handle, act=act)
    return parser


def _verify(arguments: argparse.Namespace, model: RegisteredModel, number: int) -> int:
    document = model.version(number)
    with tempfile.TemporaryDirectory() as scratch:
        problems = list(_damages(model, document, Path(scratch)))
        if not problems and arguments.retrain:
            problems = list(_differences(document, Path(scratch)))
    for problem in problems:
        print(problem)
    if not problems:
        done = "trained again, its weights are bit-identical" if arguments.retrain else "intact"
        print(f"{model.uri(number)}: {done}")
    return 1 if problems else 0


def _damages(model: RegisteredModel, document: Document, scratch: Path) -> Iterator[str]:
    """What of a version is not as its documents say; its files come to `scratch`."""
    whole = True
    for path, file in document["files"].items():
        try:
            model.get_file(document, path, scratch / path)
        except UserError as error:
            whole = False
            yield str(error)
        else:
            print(f"{path:<40}{file['bytes']:>12,} bytes  sha256={file['sha256']}")
    if whole:
        trained = read_json(scratch / "model.json", "torch2kubeflow/model")
        package = read_package(scratch)
        sha256 = {path: file["sha256"] for path, file in document["files"].items()}
        entry = model.entry(document["version"])
        claims = [
            ("the package's digest", package["digest"], document["package_digest"]),
            ("the register's digest of the package", entry["package_digest"], document["package_digest"]),
            ("the package's ONNX program", package["files"]["model.onnx"]["sha256"], sha256[model.program]),
            ("the package's torch.export program", package["files"]["model.pt2"]["sha256"], sha256["model.pt2"]),
            ("the package's predictions", package["predictions_sha256"], sha256["predictions.npy"]),
            ("the model's digest", sha256_without(trained, "checksum"), document["provenance"]["model_digest"]),
            ("the weights' digest", trained["weights_sha256"], sha256["model.safetensors"]),
            ("the data's digest", trained["dataset_digest"], document["provenance"]["dataset_digest"]),
        ]
        for what, found, claimed in claims:
            if found != claimed:
                yield f"{model.uri(document['version'])}: {what} is {found}, and version.json says {claimed}"


def _differences(document: Document, scratch: Path) -> Iterator[str]:
    """Fetch and prepare the data and train as the version was; what comes out otherwise."""
    import torch

    from components.preprocess import preprocess
    from components.train import train

    made, data = document["provenance"], document["provenance"]["data"]
    settings = {"seed": made["seed"], "threads": made["threads"], **made["parameters"]}
    others = signature(train).parameters.keys() ^ {*settings, "dataset", "model", "store", "checkpoint_seconds"}
    if others:
        raise UserError(
            f"version {document['version']} was trained by code of other parameters ({', '.join(sorted(others))}); "
            f"retrain it by that code, {made['code_version']}"
        )
    here = {
        "code": (made["code_version"], code_version()),
        "PyTorch": (made["torch"], torch.__version__),
        "device": (made["device"], "cuda" if int(settings["gpus"]) else "cpu"),
    }
    for what, (then, now) in here.items():
        if then != now:
            log.info(f"trained with the {what} {then}, and now with {now}: other weights may come out")
    raw, dataset, model = (str(scratch / name) for name in ("raw", "dataset", "retrained"))
    _download(data["source"], raw)
    preprocess(raw=raw, dataset=dataset, store="", handover_mib=0, **data["parameters"])
    found = open_dataset(dataset).digest
    if found != made["dataset_digest"]:
        yield f"the data is another by now: its digest is {found}, and was {made['dataset_digest']}"
        return
    train(dataset=dataset, model=model, store="", checkpoint_seconds=1, **settings)
    weights = read_json(Path(model) / "model.json", "torch2kubeflow/model")["weights_sha256"]
    kept = document["files"]["model.safetensors"]["sha256"]
    if weights != kept:
        why = "other code, PyTorch, device or CPU gives other weights"
        yield f"the weights differ: sha256={weights}, and were {kept}; {why}"


def _download(source: str, raw: str) -> None:
    from components.download import download
    from components.resolve import resolve

    download(data=source, version=resolve(data=source, store=""), raw=raw)


def _lineage(_: argparse.Namespace, model: RegisteredModel, number: int) -> int:
    document, register = model.version(number), model.read()
    made, data = document["provenance"], document["provenance"]["data"]
    figures = ", ".join(f"{name} {value:.6g}" for name, value in document["metrics"].items())
    champion = "the champion" if register["champion"] == number else f"version {register['champion']} is the champion"
    generations = [
        ("data", data["name"], {"source": data["source"], "raw": data["raw_digest"]}),
        ("dataset", made["dataset_digest"], {**data["parameters"], "test split": made["test_split_digest"]}),
        (
            "model",
            made["model_digest"],
            {**{name: made[name] for name in ("seed", "threads", "torch", "device")}, **made["parameters"]},
        ),
        ("package", document["package_digest"], {"metrics": figures, "code": made["code_version"]}),
        (
            "version",
            f"{model.name}/{number}, {champion}",
            {
                "registered": made["time"],
                "run": made["run_id"],
                "image": made["image"],
                "revision": made["revision"],
                "place": model.uri(number),
            },
        ),
    ]
    for depth, (kind, name, facts) in enumerate(generations):
        branch = "   " * (depth - 1) + "└─ " if depth else ""
        print(f"{branch}{kind} {name}")
        for fact, value in facts.items():
            if value != "":
                print(f"{'   ' * depth}     {fact}: {value}")
    return 0
