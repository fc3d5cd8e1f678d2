"""Verbs `verify` and `lineage`: check a version against its digests, and show what it was made from."""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.shared.core import log
from components.shared.core.code_digest import code_digest
from components.shared.core.document import Items, JsonObject, Part
from components.shared.core.errors import UserError
from components.shared.core.printable import lacks_query, say, told
from components.shared.data.dataset import earlier_digest, open_dataset
from components.shared.evaluation.exported_model import PackageDocument
from components.shared.models.document import ModelDocument
from components.shared.parameters.preparation import PreprocessRecipe, ReadingRecipe
from components.shared.parameters.training import Settings, TrainingRecipe
from components.shared.registry.document import Provenance, VersionDocument
from components.shared.registry.registry import RegisteredModel
from runner.answer import Answer
from runner.registry.address import model_at, read_address
from runner.registry.pickles import pickles
from runner.verbs.options import DEFAULT


class VerifyDocument(Answer):
    """What does not match the digests of a version."""

    FORMAT = "torch2kubeflow/verify"

    version: str  # its address
    retrained: bool
    problems: Items[str]


class Generation(Part):
    """Something that the next generation was made from: data, dataset, model, package or version."""

    kind: str
    name: str
    facts: JsonObject


class LineageDocument(Answer):
    """What a version was made from, the oldest first."""

    FORMAT = "torch2kubeflow/lineage"

    generations: Items[Generation]


def handle(arguments: argparse.Namespace) -> int:
    """Carry out the verb, and return the exit code."""
    address = read_address(arguments.address)
    if not address or address.version is None:
        raise UserError(
            f"{arguments.address} is not a version", "give NAME/VERSION or s3://.../models/NAME/versions/VERSION"
        )
    with model_at(arguments, address) as model:
        return VERBS[arguments.verb](arguments, model, address.version)


def _verify(arguments: argparse.Namespace, model: RegisteredModel, number: int) -> int:
    document = model.read_version(number)
    with tempfile.TemporaryDirectory() as scratch:
        problems = list(_damages(model, document, Path(scratch)))
        if not problems and arguments.retrain:
            problems = list(_differences(document, Path(scratch)))
    for problem in problems:
        say(problem)
    if not problems:
        done = "trained again, its weights are bit-identical" if arguments.retrain else "intact"
        say(f"{model.uri(number)}: {done}")
    arguments.document = VerifyDocument(version=model.uri(number), retrained=arguments.retrain, problems=problems)
    return 1 if problems else 0


def _damages(model: RegisteredModel, document: VersionDocument, scratch: Path) -> Iterator[str]:
    """Download the files of a version to `scratch` and yield what does not match its documents."""
    is_whole = True
    for path, file in document.files.items():
        try:
            model.versions.download(document, path, scratch / path)
        except UserError as error:
            is_whole = False
            yield str(error)
        else:
            say(f"{path:<40}{file.bytes:>12,} bytes  sha256={file.sha256}")
    if is_whole:
        yield from _contradictions(model, document, scratch)


def _contradictions(model: RegisteredModel, document: VersionDocument, scratch: Path) -> Iterator[str]:
    """Yield the digests in the documents of a version that differ; its files are in `scratch`."""
    trained = ModelDocument.read(scratch / "model.json")
    package = PackageDocument.read(scratch / "package.json")
    sha256 = {path: file.sha256 for path, file in document.files.items()}
    entry = model.entry(document.version)
    digests = [
        ("the package's digest", package.digest, document.package_digest),
        ("the registry's digest of the package", entry.package_digest, document.package_digest),
        ("the package's ONNX program", package.files["model.onnx"].sha256, sha256[model.versions.onnx_path]),
        ("the package's torch.export program", package.files["model.pt2"].sha256, sha256["model.pt2"]),
        ("the package's predictions.npy", package.predictions_sha256, sha256["predictions.npy"]),
        ("the model's digest", trained.checksum, document.provenance.model_digest),
        ("the weights' digest", trained.weights_sha256, sha256["model.safetensors"]),
        ("the data's digest", trained.dataset_digest, document.provenance.dataset_digest),
    ]
    for what, found, expected in digests:
        if found != expected:
            yield f"{model.uri(document.version)}: {what} is {found}, but version.json has {expected}"
    if names := pickles(scratch / "model.pt2"):
        what = f"{model.uri(document.version)}/model.pt2 holds pickles, which can run code when it is loaded"
        yield f"{what}: {', '.join(names[:3])}; run the pipeline again, which exports none"


def _differences(document: VersionDocument, scratch: Path) -> Iterator[str]:
    """Prepare the data and train as for this version; yield what comes out differently."""
    from components.preprocess import preprocess
    from components.train import train

    made, data = document.provenance, document.provenance.data
    settings = {"seed": made.seed, "threads": made.threads, **made.parameters}
    if "shuffle_window" in settings:
        raise UserError(
            f"version {document.version} was trained on data that was streamed from the store, and this verb prepares "
            "it on this machine, where the order of the images is another",
            "run the pipeline with the same parameters, and compare the digests of its weights",
        )
    others = {"seed", "threads", *Settings.model_fields} - {"shuffle_window"} ^ settings.keys()
    if others:
        raise UserError(
            f"version {document.version} was trained by code with other parameters ({', '.join(sorted(others))})",
            f"retrain it with that code, {made.code_version}",
        )
    if lacks_query(data.source):
        message = f"the data is from {data.source}, of which the query is stored nowhere, as it may be a key"
        raise UserError(message, "run the pipeline with the whole address, and compare the digests of its weights")
    _log_changes(made, "cuda" if int(settings["gpus"]) else "cpu")
    raw, dataset, model = (str(scratch / name) for name in ("raw", "dataset", "retrained"))
    _download(data.source, ReadingRecipe.taken_from(data.parameters), raw)
    preprocess(raw=raw, dataset=dataset, recipe=PreprocessRecipe.of(**data.parameters).text(), prepared_by="")
    prepared = open_dataset(dataset)
    if prepared.digest != made.dataset_digest and earlier_digest(prepared) != made.dataset_digest:
        yield f"the data has changed: its digest is {prepared.digest}, and was {made.dataset_digest}"
        return
    train(dataset=dataset, model=model, recipe=TrainingRecipe.of(**settings).text())
    weights = ModelDocument.read(Path(model) / "model.json").weights_sha256
    stored = document.files["model.safetensors"].sha256
    if weights != stored:
        why = "other code, PyTorch, device or CPU gives other weights"
        yield f"the weights differ: sha256={weights}, and were {stored}; {why}"


def _log_changes(made: Provenance, device: str) -> None:
    """Log what has changed since a version was trained, and so may change its weights."""
    import torch

    from components.shared.training.loop import ENGINE

    for what, then, now in [
        ("code", made.code_version, code_digest(ENGINE)),
        ("PyTorch", made.torch, torch.__version__),
        ("device", made.device, device),
    ]:
        if then != now:
            log.info(f"trained with the {what} {then}, and now with {now}: the weights may differ")


def _download(source: str, recipe: ReadingRecipe, raw: str) -> None:
    from components.download import download
    from components.resolve import resolve

    version = resolve(graph=DEFAULT, options={}, data=source).version
    download(data=source, version=version, recipe=recipe.text(), needs_labels=True, raw=raw)


def _lineage(arguments: argparse.Namespace, model: RegisteredModel, number: int) -> int:
    document, registry = model.read_version(number), model.read()
    champion = "the champion" if registry.champion == number else f"version {registry.champion} is the champion"
    generations = _generations(document, model, champion)
    arguments.document = LineageDocument(
        generations=[Generation(kind=kind, name=name, facts=facts) for kind, name, facts in generations]
    )
    for depth, (kind, name, facts) in enumerate(generations):
        branch = "   " * (depth - 1) + "└─ " if depth else ""
        say(f"{branch}{kind} {name}")
        for fact, value in facts.items():
            if value != "":
                say(f"{'   ' * depth}     {fact}: {value}")
    return 0


def _generations(
    document: VersionDocument, model: RegisteredModel, champion: str
) -> list[tuple[str, str, dict[str, Any]]]:
    """Return what a version was made from, each made from the one before: kind, name and facts."""
    made, data = document.provenance, document.provenance.data
    metrics = ", ".join(f"{name} {value:.6g}" for name, value in document.metrics.items())
    facts = {"seed": made.seed, "threads": made.threads, "torch": made.torch, "device": made.device}
    number, source = document.version, {"image": made.image, "revision": made.revision}
    registration = {"registered": made.time, "run": made.run_id, **source, "uri": model.uri(number)}
    return [
        ("data", data.name, {"source": told(data.source), "raw": data.raw_digest}),
        ("dataset", made.dataset_digest, {**data.parameters, "test split": made.test_split_digest}),
        ("model", made.model_digest, {**facts, **made.parameters}),
        ("package", document.package_digest, {"metrics": metrics, "code": made.code_version}),
        ("version", f"{model.name}/{number}, {champion}", registration),
    ]


VERBS = {"verify": _verify, "lineage": _lineage}
