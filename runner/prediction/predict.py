"""Verb `predict`: predict pictures by a version of the registry, or by a package."""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from components.shared.core import log
from components.shared.core.printable import say, told
from components.shared.core.resources import thread_count
from components.shared.data.layout.reading import Reading
from components.shared.data.prepared_data import fetch_prepared, is_prepared, prepared_folder
from components.shared.data.raw import write_raw
from components.shared.data.sources.schemes import open_source
from components.shared.prediction.batch import predict_all
from components.shared.prediction.document import CSV, MANIFEST, PAGE, PredictionsDocument, sentence
from components.shared.prediction.drift import REPORT, THRESHOLD, DriftReportDocument, Known
from components.shared.prediction.find_reference import evaluations_of, reference_beside, reference_of_version
from components.shared.prediction.inputs import Inputs
from components.shared.prediction.rows import Program, open_program
from components.shared.registry.registry import champion_of
from runner.answer import Answer
from runner.registry.address import GivenModel, given_by_option
from runner.verbs.options import make_folder


class PredictDocument(Answer):
    """What was predicted, where the table is, and whether the pictures have drifted."""

    FORMAT = "torch2kubeflow/predict"

    folder: str
    predictions: PredictionsDocument
    drift: DriftReportDocument


def handle(arguments: argparse.Namespace) -> int:
    """Predict, print a summary, and return the exit code."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="torch2kubeflow-")))
        program, known = stack.enter_context(_program(arguments, scratch))
        with log.named("predict"):
            inputs = Inputs(_data(arguments, scratch / "raw"), program.package)
            threshold = THRESHOLD if arguments.drift_threshold is None else arguments.drift_threshold
            make_folder(arguments.output, "give another --output")
            found = predict_all(inputs, program, arguments.output, known, threshold)
    drift = DriftReportDocument.read(arguments.output / REPORT)
    for line in _lines(found, drift, arguments.output):
        say(line)
    arguments.document = PredictDocument(folder=str(arguments.output), predictions=found, drift=drift)
    return 0


@contextmanager
def _program(arguments: argparse.Namespace, scratch: Path) -> Iterator[tuple[Program, Known]]:
    """Yield the program that --model names, of a folder with a package or a version of the store, and its reference."""
    threads = thread_count(arguments.threads)
    with given_by_option(arguments) as given:
        if isinstance(given, Path):
            program = open_program(given / "model.onnx", given / "package.json", str(given), threads)
            known = reference_beside(program.model, program.package, evaluations_of(given))
        else:
            program, known = _of_version(given, scratch, threads)
    yield program, known


def _of_version(given: GivenModel, scratch: Path, threads: int) -> tuple[Program, Known]:
    model, version = given
    if version is None:
        version = champion_of(model, f"give --model {model.name}/VERSION")
    document = model.read_version(version)
    model.versions.download_package(document, scratch)
    program = open_program(scratch / "model.onnx", scratch / "package.json", f"{model.name}/{version}", threads)
    return program, reference_of_version(model.versions, document, scratch)


def _data(arguments: argparse.Namespace, folder: Path) -> Path:
    """Return the folder with the pictures as raw data, or the prepared dataset that was given."""
    data = str(arguments.data)
    if prepared := prepared_folder(data):
        return prepared
    folder.mkdir()
    if is_prepared(data):
        fetch_prepared(data, folder)
        return folder
    source = open_source(data)
    reading = Reading(labels=arguments.labels or "", needs_labels=False)
    found = source.fetch(folder, reading)
    if left_out := found.get("left_out"):
        for sentence in left_out.sentences():
            log.info(sentence)
    write_raw(folder, source=told(data), version=source.version(), seconds=0.0, **found)
    return folder


def _lines(found: PredictionsDocument, drift: DriftReportDocument, folder: Path) -> Iterator[str]:
    """Yield what people want to know."""
    yield sentence(found.rows, found.errors, found.model)
    if found.labelled:
        yield f"{found.correct / found.labelled:.2%} of {found.labelled:,} labels predicted correctly"
    yield drift.sentence
    rate = (found.rows - found.resumed_at) / max(found.seconds["all"], 1e-9)
    yield f"{rate:,.0f} pictures/s, {found.seconds['program']:.1f} of {found.seconds['all']:.1f} s by the program"
    for name in (CSV, PAGE, MANIFEST):
        yield f"  {folder / name}"
