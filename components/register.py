"""Step register: an accepted, exported model -> a version in the store, and its champion if it is better.

Better is what has more images of the same test split right, by more than chance: McNemar's test. An old champion whose
test split was another is scored anew, by ONNX Runtime.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.shared.core import log
from components.shared.core.errors import CorruptDataError, UserError
from components.shared.core.files import Document, new_file, new_folder, read_json, sha256_without, write_json
from components.shared.core.npy import read_npy
from components.shared.core.resources import thread_count
from components.shared.core.schema import check_fields, is_count, is_text
from components.shared.data.dataset import Dataset, open_dataset
from components.shared.evaluation.document import read_evaluation
from components.shared.evaluation.exported_model import read_package
from components.shared.evaluation.inference import load_onnx, predict
from components.shared.evaluation.metrics import mcnemar
from components.shared.evaluation.report.html import page
from components.shared.parameters import DATA_SETS, check
from components.shared.registry.registry import RegisteredModel, Verdict, decision_about, now, times_decided
from components.shared.storage.client import NoSuchObject, open_store

FORMAT = "torch2kubeflow/registration"
MAX_NAME = 63  # letters, as of parameter model_name
_MODEL_FIELDS: dict[str, Callable[[Document], bool]] = {  # what a version tells of its training
    "parameters": lambda d: isinstance(d["parameters"], dict),
    "seed": lambda d: is_count(d["seed"]),
    "threads": lambda d: is_count(d["threads"]),
    "torch": lambda d: is_text(d["torch"]),
    "device": lambda d: is_text(d["device"]),
    "code_version": lambda d: is_text(d["code_version"]),
}


@log.step
def register(
    *,
    dataset: str | Path,
    model: str | Path,
    evaluation: str | Path,
    package: str | Path,
    store: str,
    model_name: str,
    significance: float,
    threads: int,
    registration: str | Path,
    promotion: str | Path,
) -> None:
    """Make `package` a version of a model in the store; write folder `registration` and the page `promotion`.

    The same package is one version, however often it comes, and is judged once. Without a `store` nothing is kept, and
    `registration.json` says so. UserError where a parameter is out of range, the artifacts do not belong together, the
    store cannot be used, or its register is damaged.
    """
    check(store=store, model_name=model_name, significance=significance, threads=threads)
    challenger = _Challenger.open(Path(dataset), Path(model), Path(evaluation), Path(package))
    name = model_name or _name(challenger.data)
    with new_folder(registration) as folder:
        if store:
            scratch = folder / "scratch"
            scratch.mkdir()
            registered = RegisteredModel(open_store(store, os.environ), name)
            outcome = _register(challenger, registered, significance, thread_count(threads), scratch)
            scratch.rmdir()
        else:
            outcome = _Outcome(reason="nothing is kept, as the parameter store is empty; give store=s3://bucket/prefix")
        _write_page(promotion, name, challenger, outcome, significance)
        document = {
            "format": FORMAT,
            "name": name,
            "version": outcome.version,
            "is_champion": outcome.is_champion,
            "reason": outcome.reason,
            "uri": outcome.uri,
            "package_digest": challenger.package["digest"],
            "figures": outcome.figures,
        }
        write_json(folder / "registration.json", document)
    log.info(_sentence(name, outcome))


class _Outcome(NamedTuple):
    """What became of a challenger; without a store it has no version and no address."""

    reason: str
    version: int | None = None
    uri: str | None = None
    champion_before: int | None = None
    champion_after: int | None = None  # as it was decided
    champion: int | None = None  # now
    figures: Document | None = None
    decided_before: int = 0  # how often the same test split had decided between two versions

    @property
    def is_champion(self) -> bool:
        return self.version is not None and self.version == self.champion


@dataclass(frozen=True)
class _Challenger:
    """The artifacts of a model to register, proven to belong together."""

    data: Dataset
    model_folder: Path
    evaluation_folder: Path
    package_folder: Path
    model: Document
    package: Document
    predictions: NDArray[np.float32]  # probabilities, N x classes

    @classmethod
    def open(cls, dataset: Path, model: Path, evaluation: Path, package: Path) -> "_Challenger":
        data, exported = open_dataset(dataset), read_package(package)
        trained = read_json(model / "model.json", "torch2kubeflow/model")
        check_fields(trained, _MODEL_FIELDS, str(model / "model.json"), "train the model again")
        evaluated = read_evaluation(evaluation)
        given = [
            (dataset, "dataset_digest", data.digest),
            (model, "model_digest", sha256_without(trained, "checksum")),
            (evaluation, "dataset_digest", evaluated["dataset_digest"]),
            (evaluation, "model_digest", evaluated["model_digest"]),
        ]
        for folder, field, found in given:
            if exported[field] != found:
                what = field.replace("_", " ")
                raise UserError(
                    f"{package} was exported from the {what} {exported[field]}, and {folder} has {found}; "
                    "give what was exported, or export anew"
                )
        predictions = read_npy(evaluation / "predictions.npy", (data.counts["test"], len(data.classes)), np.float32)
        return cls(data, model, evaluation, package, trained, exported, predictions)

    @property
    def test_split_digest(self) -> str:
        return str(self.data.document["splits"]["test"]["digest"])

    @property
    def entry(self) -> Document:
        """What the register keeps of it."""
        return {
            "accuracy": self.package["test_accuracy"],
            "images": self.data.counts["test"],
            "test_split_digest": self.test_split_digest,
            "model_digest": self.package["model_digest"],
            "run_id": os.environ.get("RUN_ID", ""),
        }

    def files(self, program: str) -> dict[str, tuple[Path, str]]:
        """The files of the version, each with its SHA-256 where it is known; `program` is the path of the ONNX one."""
        digests = {name: entry["sha256"] for name, entry in self.package["files"].items()}
        return {
            "model.safetensors": (self.model_folder / "model.safetensors", self.package["weights_sha256"]),
            "model.json": (self.model_folder / "model.json", ""),
            "model.pt2": (self.package_folder / "model.pt2", digests["model.pt2"]),
            "package.json": (self.package_folder / "package.json", ""),
            "predictions.npy": (self.evaluation_folder / "predictions.npy", self.package["predictions_sha256"]),
            program: (self.package_folder / "model.onnx", digests["model.onnx"]),
        }

    @property
    def facts(self) -> Document:
        """What the document of the version tells beside its files."""
        names = ("name", "source", "raw_digest", "parameters")
        return {
            **{name: self.package[name] for name in ("metrics", "classes", "input", "output")},
            "provenance": {
                "data": {name: self.data.document[name] for name in names},
                "dataset_digest": self.data.digest,
                "test_split_digest": self.test_split_digest,
                "model_digest": self.package["model_digest"],
                **{name: self.model[name] for name in _MODEL_FIELDS},
                "revision": os.environ.get("REVISION", ""),
                "image": os.environ.get("STEP_IMAGE", ""),
                "run_id": os.environ.get("RUN_ID", ""),
                "time": now(),
            },
        }


def _name(data: Dataset) -> str:
    """A model's name from that of its data set."""
    source, title = data.document["source"], data.document["name"]
    if source in DATA_SETS:
        return str(source)
    name = re.sub(r"[^a-z0-9]+", "-", title.lower())[:MAX_NAME].strip("-")
    if not name:
        raise UserError(f"the data set's name {title!r} has no letter or digit for a model's name; give model_name")
    return name


def _register(
    challenger: _Challenger, model: RegisteredModel, significance: float, threads: int, scratch: Path
) -> _Outcome:
    entry = model.claim(challenger.package["digest"], **challenger.entry)
    version = entry["version"]
    model.keep(entry, challenger.files(model.program), challenger.facts, scratch)
    judge = _Judge(challenger, model, version, significance, threads, scratch)
    register = model.complete(version, judge)
    decision = decision_about(register, version)
    assert decision is not None
    earlier = register["decisions"][: register["decisions"].index(decision)]
    return _Outcome(
        reason=decision["reason"],
        version=version,
        uri=model.uri(version),
        champion_before=decision["champion_before"],
        champion_after=decision["champion_after"],
        champion=register["champion"],
        figures=decision["figures"],
        decided_before=times_decided(earlier, challenger.test_split_digest),
    )


class _Incomparable(Exception):
    """Why two versions cannot be compared on the same images."""


class _Judge:
    """Compares the challenger with the champion of a register; what it has found of a champion it keeps."""

    def __init__(
        self,
        challenger: _Challenger,
        model: RegisteredModel,
        version: int,
        significance: float,
        threads: int,
        scratch: Path,
    ) -> None:
        self._challenger, self._model, self._version = challenger, model, version
        self._significance, self._threads, self._scratch = float(significance), threads, scratch
        self._known: dict[int, tuple[NDArray[np.bool_], bool]] = {}  # champion -> the images it has right, re-scored?

    def __call__(self, register: Document) -> Verdict:
        champion = register["champion"]
        if champion is None:
            return Verdict(True, None, "there was no champion before")
        ours = self._right(self._challenger.predictions)
        try:
            if champion not in self._known:
                self._known[champion] = self._champion(champion)
        except (_Incomparable, NoSuchObject) as error:
            command = f"python pipeline.py models promote {self._model.name} {self._version}"
            return Verdict(False, None, f"not compared: {error}; to make it the champion all the same: {command}")
        theirs, rescored = self._known[champion]
        n01, n10, p_value = mcnemar(theirs, ours)
        figures = {
            "champion": champion,
            "champion_accuracy": float(theirs.mean()),
            "challenger_accuracy": float(ours.mean()),
            "images": len(ours),
            "n01": n01,
            "n10": n10,
            "p_value": p_value,
            "significance": self._significance,
            "rescored": rescored,
            "decided_before": times_decided(register["decisions"], self._challenger.test_split_digest),
        }
        return Verdict(n01 > n10 and p_value < self._significance, figures, _reason(figures))

    @cached_property
    def _labels(self) -> NDArray[np.int64]:
        return np.concatenate([labels for _, labels in self._challenger.data.shards("test")])

    def _right(self, predictions: NDArray[np.float32]) -> NDArray[np.bool_]:
        right: NDArray[np.bool_] = predictions.argmax(axis=1) == self._labels
        return right

    def _champion(self, champion: int) -> tuple[NDArray[np.bool_], bool]:
        """The images that the champion has right, and whether it was scored anew."""
        data = self._challenger.data
        try:
            document = self._model.version(champion)
            if document["classes"] != data.classes:
                raise _Incomparable(f"version {champion} knows other classes")
            shape = document["input"]["shape"][1:]
            if shape != list(data.image_shape):
                raise _Incomparable(f"version {champion} reads images of shape {shape}, not {list(data.image_shape)}")
            if document["provenance"]["test_split_digest"] == self._challenger.test_split_digest:
                return self._right(self._model.predictions(document, data.counts["test"])), False
            path = self._scratch / "model.onnx"
            self._model.get_file(document, self._model.program, path)
        except CorruptDataError as error:
            raise _Incomparable(str(error)) from None
        return self._right(self._score(champion, path)), True

    def _score(self, champion: int, path: Path) -> NDArray[np.float32]:
        """What an old champion's program predicts on the present test split."""
        log.info(f"the test split has changed: scoring version {champion} anew")
        data = self._challenger.data
        shards, progress = list(data.shards("test")), log.Progress("scoring", data.counts["test"], "images")
        try:
            found = predict(load_onnx(path, self._threads), shards, progress)
        except UserError as error:
            raise _Incomparable(f"version {champion} cannot be scored anew: {error}") from None
        finally:
            path.unlink()
        if found.shape != (data.counts["test"], len(data.classes)):
            raise _Incomparable(f"version {champion} gives probabilities of shape {found.shape}")
        return found


def _reason(figures: Document) -> str:
    against = (
        f"{figures['challenger_accuracy']:.2%} against {figures['champion_accuracy']:.2%} of "
        f"version {figures['champion']}"
    )
    if figures["n01"] <= figures["n10"]:
        return f"{against}, which is not better"
    if figures["p_value"] >= figures["significance"]:
        return (
            f"{against}, p = {figures['p_value']:.2g}, which may be chance (significance {figures['significance']:g})"
        )
    return f"{against}, p = {figures['p_value']:.2g}"


def _sentence(name: str, outcome: _Outcome) -> str:
    if outcome.version is None:
        return outcome.reason
    subject = f"{name} version {outcome.version}"
    if outcome.is_champion:
        return f"{subject} is the champion: {outcome.reason}"
    if outcome.champion_after == outcome.version:
        return f"{subject} was the champion once, and version {outcome.champion} is it now"
    return f"{subject} is kept, and version {outcome.champion} is the champion: {outcome.reason}"


def _write_page(path: str | Path, name: str, challenger: _Challenger, outcome: _Outcome, significance: float) -> None:
    html = page("promotion.html").render(
        name=name,
        outcome=outcome,
        sentence=_sentence(name, outcome),
        package=challenger.package,
        images=challenger.data.counts["test"],
        test_split_digest=challenger.test_split_digest,
        significance=significance,
    )
    with new_file(path) as file:
        file.write(html.encode())
