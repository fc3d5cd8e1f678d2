"""Step register: an accepted, exported model -> a version in the store, and the champion if it is better; then served.

What is better, `shared/registry/challenger.py` decides.
"""

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.core.files import new_file, new_folder
from components.shared.core.npy import read_npy, write_npy
from components.shared.core.resources import thread_count
from components.shared.core.step import step
from components.shared.data.dataset import Dataset, DatasetDocument, open_dataset
from components.shared.data.sources.schemes import DATA_SETS
from components.shared.evaluation.document import EvaluationDocument
from components.shared.evaluation.exported_model import PackageDocument, RefusalDocument
from components.shared.evaluation.parity import largest_difference
from components.shared.evaluation.report.html import page
from components.shared.models.document import ModelDocument
from components.shared.parameters.registration import RegisterRecipe
from components.shared.registry.challenger import champion_judge, digest_of_test_split
from components.shared.registry.champion import decision_about, now, times_decided
from components.shared.registry.document import (
    DataOrigin,
    Decision,
    Figures,
    Provenance,
    RegistrationDocument,
    RegistryDocument,
)
from components.shared.registry.registry import RegisteredModel
from components.shared.registry.versions import REFERENCE, SAMPLES
from components.shared.storage.client import open_store

READS = ("shared/evaluation/report/templates/promotion.html",)

MAX_SAMPLES = 20  # test images that are kept
MAX_NAME = 63  # characters, as of parameter model_name


@step
def register(
    *,
    dataset: str | Path,
    model: str | Path,
    evaluation: str | Path,
    package: str | Path,
    recipe: str,
    registration: str | Path,
    promotion: str | Path,
) -> None:
    """Make `package` a version of a model in the store; write folder `registration` and the page `promotion`.

    A package is one version, however often it is registered, and is judged once. Without a store, or if the model was
    not accepted, nothing is stored, and `registration.json` says so. Raises UserError if `recipe` is invalid, the
    artifacts do not belong together, the store cannot be used, its registry is damaged, or a new champion that shall
    be served fails, and ParityError if the exported predictions are not those that were evaluated.
    """
    parameters = RegisterRecipe.read(recipe)
    evaluated = EvaluationDocument.read(Path(evaluation) / "evaluation.json")
    log.event("verdict", accuracy=evaluated.accuracy, accepted=evaluated.accepted, reasons=evaluated.reasons)
    if not evaluated.accepted:
        _refuse(evaluated, parameters.model_name or _default_name(open_dataset(dataset)), registration)
        return
    store = parameters.store
    challenger = _Challenger.open(Path(dataset), Path(model), Path(evaluation), Path(package))
    name = parameters.model_name or _default_name(challenger.data)
    with new_folder(registration) as folder:
        if store:
            scratch = folder / "scratch"
            scratch.mkdir()
            registered = RegisteredModel(open_store(store, os.environ), name)
            outcome = _register(challenger, registered, parameters, scratch)
            shutil.rmtree(scratch)
        else:
            outcome = _Outcome(reason="nothing is stored: the parameter store is empty; give store=s3://bucket/prefix")
        _write_page(promotion, name, challenger, outcome, parameters.significance)
        document = RegistrationDocument(
            name=name,
            version=outcome.version,
            is_champion=outcome.is_champion,
            reason=outcome.reason,
            uri=outcome.uri,
            package_digest=challenger.package.digest,
            figures=outcome.figures,
        )
        document.write(folder / "registration.json")
    log.info(_sentence(name, outcome))
    told = {"version": outcome.version, "is_champion": outcome.is_champion, "reason": outcome.reason}
    log.event("registered", name=name, **told)
    if parameters.deploy and outcome.is_champion:
        # What it needs is imported by those who want it.
        from components.shared.serving.new_champion import deploy_champion

        assert outcome.version is not None
        deploy_champion(name, outcome.version, parameters)


def _refuse(evaluated: EvaluationDocument, name: str, registration: str | Path) -> None:
    """Write that a model was not accepted."""
    reason = f"not accepted, not registered: {'; '.join(evaluated.reasons)}"
    document = RegistrationDocument(
        name=name, version=None, is_champion=False, reason=reason, uri=None, package_digest=None, figures=None
    )
    with new_folder(registration) as folder:
        document.write(folder / "registration.json")
    log.info(reason)


class _Outcome(NamedTuple):
    """The result for a challenger; without a store it has neither version nor URI."""

    reason: str
    version: int | None = None
    uri: str | None = None
    champion_before: int | None = None
    champion_after: int | None = None  # by the decision
    champion: int | None = None  # now
    figures: Figures | None = None
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
    model: ModelDocument
    package: PackageDocument
    predictions: NDArray[np.float32]  # probabilities, N x classes

    @classmethod
    def open(cls, dataset: Path, model: Path, evaluation: Path, package: Path) -> "_Challenger":
        data, exported = open_dataset(dataset), _read_package(package)
        trained = ModelDocument.read(model / "model.json")
        evaluated = EvaluationDocument.read(evaluation / "evaluation.json")
        for folder, what, found, expected in (
            (dataset, "dataset", data.digest, exported.dataset_digest),
            (model, "model", trained.checksum, exported.model_digest),
            (evaluation, "dataset", evaluated.dataset_digest, exported.dataset_digest),
            (evaluation, "model", evaluated.model_digest, exported.model_digest),
        ):
            if found != expected:
                raise UserError(
                    f"{package} was exported from the {what} digest {expected}, but {folder} has {found}",
                    "give the artifacts that were exported, or export again",
                )
        shape = (data.counts["test"], len(data.classes))
        predictions = read_npy(package / "predictions.npy", shape, np.float32)
        largest_difference(
            "the evaluation and the exported predictions",
            read_npy(evaluation / "predictions.npy", shape, np.float32),
            predictions,
        )
        return cls(data, model, evaluation, package, trained, exported, predictions)

    @property
    def samples(self) -> int:
        """The number of test images to keep."""
        return min(MAX_SAMPLES, len(self.predictions))

    def files(self, onnx_path: str) -> dict[str, tuple[Path, str]]:
        """The files of the version, each with its SHA-256 if it is known."""
        package = self.package
        return {
            "model.safetensors": (self.model_folder / "model.safetensors", package.weights_sha256),
            "model.json": (self.model_folder / "model.json", ""),
            "model.pt2": (self.package_folder / "model.pt2", package.files["model.pt2"].sha256),
            "package.json": (self.package_folder / "package.json", ""),
            "predictions.npy": (self.package_folder / "predictions.npy", package.predictions_sha256),
            onnx_path: (self.package_folder / "model.onnx", package.files["model.onnx"].sha256),
            **{name: (self.evaluation_folder / name, "") for name in self._reference()},
        }

    def write_samples(self, folder: Path) -> dict[str, tuple[Path, str]]:
        """Write some test images, evenly spread, and what the model predicts of them; return the files."""
        rows = np.linspace(0, len(self.predictions) - 1, self.samples).astype(int).tolist()
        arrays = (self.data.take("test", rows), self.predictions[rows])
        for name, array in zip(SAMPLES, arrays, strict=True):
            write_npy(folder / name, array)
        return {name: (folder / name, "") for name in SAMPLES}

    def _reference(self) -> Sequence[str]:
        """Return the names of the files of the reference for drift, which older evaluations do not have."""
        return REFERENCE if (self.evaluation_folder / REFERENCE[0]).exists() else ()

    def provenance(self, recipe: RegisterRecipe) -> Provenance:
        """Return what the version is made from. Raises UserError if the dataset does not say where it comes from."""
        data, model = self.data.document, self.model
        if data.source is None or data.raw_digest is None or data.parameters is None:
            message = f"{self.data.folder}/dataset.json does not say what it was prepared from"
            raise UserError(message, DatasetDocument.REMEDY)
        return Provenance(
            data=DataOrigin(name=data.name, source=data.source, raw_digest=data.raw_digest, parameters=data.parameters),
            dataset_digest=data.digest,
            test_split_digest=digest_of_test_split(self.data),
            model_digest=self.package.model_digest,
            parameters=model.parameters,
            registration=recipe.kept(),
            seed=model.seed,
            threads=model.threads,
            torch=model.torch,
            device=model.device,
            code_version=model.code_version,
            revision=os.environ.get("REVISION", ""),
            image=os.environ.get("STEP_IMAGE", ""),
            run_id=os.environ.get("RUN_ID", ""),
            time=now(),
        )


def _read_package(folder: Path) -> PackageDocument:
    """Return the document of a package. Raises UserError also if step export did not accept the model."""
    refused = folder / "refused.json"
    if refused.exists():
        reasons = "; ".join(RefusalDocument.read(refused).reasons)
        raise UserError(
            f"step evaluate accepted the model and step export did not: {reasons}",
            "let both run on the same kind of node, or give the thresholds a distance from the model's figures",
        )
    return PackageDocument.read(folder / "package.json")


def _default_name(data: Dataset) -> str:
    """Return a model's name made from that of its data set."""
    source, title = data.document.source, data.document.name
    if source in DATA_SETS:
        return source
    name = re.sub(r"[^a-z0-9]+", "-", title.lower())[:MAX_NAME].strip("-")
    if not name:
        raise UserError(f"no model name can be made from the data set's name {title!r}", "give model_name")
    return name


def _register(challenger: _Challenger, model: RegisteredModel, parameters: RegisterRecipe, scratch: Path) -> _Outcome:
    significance, threads = parameters.significance, thread_count(parameters.threads)
    package, provenance = challenger.package, challenger.provenance(parameters)
    entry = model.reserve_version(
        package.digest,
        accuracy=package.test_accuracy,
        images=challenger.data.counts["test"],
        test_split_digest=provenance.test_split_digest,
        model_digest=package.model_digest,
        run_id=provenance.run_id,
    )
    version = entry.version
    kept = challenger.write_samples(scratch) if parameters.keep_samples else {}
    files = {**challenger.files(model.versions.onnx_path), **kept}
    model.versions.upload(entry, files, package, provenance, scratch, samples=challenger.samples if kept else 0)
    judge = champion_judge(model, version, challenger.data, challenger.predictions, significance, threads, scratch)
    registry = model.finalize(version, judge)
    decision = decision_about(registry, version)
    assert decision is not None
    earlier = registry.decisions[: registry.decisions.index(decision)]
    return _Outcome(
        reason=_reason(registry, decision),
        version=version,
        uri=model.uri(version),
        champion_before=decision.champion_before,
        champion_after=decision.champion_after,
        champion=registry.champion,
        figures=decision.figures,
        decided_before=times_decided(earlier, provenance.test_split_digest),
    )


def _reason(registry: RegistryDocument, decision: Decision) -> str:
    """Return why the version of a decision is the champion or is not, which later decisions may have changed."""
    if registry.champion == decision.champion_after:
        return decision.reason
    last = next(one for one in reversed(registry.decisions) if one.champion_after == registry.champion)
    how = {"register": "it was better", "promote": "it was promoted by hand", "rollback": "by a rollback"}[last.action]
    return how if registry.champion == decision.version else f"version {registry.champion} is since then: {how}"


def _sentence(name: str, outcome: _Outcome) -> str:
    if outcome.version is None:
        return outcome.reason
    subject = f"{name} version {outcome.version}"
    if outcome.is_champion:
        return f"{subject} is the champion: {outcome.reason}"
    if outcome.champion_after == outcome.version:
        return f"{subject} was the champion before, and version {outcome.champion} is now"
    return f"{subject} was registered, and version {outcome.champion} is the champion: {outcome.reason}"


def _write_page(path: str | Path, name: str, challenger: _Challenger, outcome: _Outcome, significance: float) -> None:
    html = page("promotion.html").render(
        name=name,
        outcome=outcome,
        sentence=_sentence(name, outcome),
        package=challenger.package,
        images=challenger.data.counts["test"],
        test_split_digest=digest_of_test_split(challenger.data),
        significance=significance,
    )
    with new_file(path) as file:
        file.write(html.encode())
