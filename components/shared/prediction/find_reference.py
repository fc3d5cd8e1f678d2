"""Where the reference for drift of a model is: among the files of its version, or in the evaluation of its package."""

import os
from collections.abc import Sequence
from pathlib import Path

from components.shared.core.errors import raise_as_corrupt
from components.shared.data.prepared_data import local_path
from components.shared.evaluation.document import EvaluationDocument
from components.shared.evaluation.exported_model import PackageDocument
from components.shared.prediction.drift import Known, read_reference
from components.shared.prediction.pods.chosen import Chosen
from components.shared.registry.document import VersionDocument
from components.shared.registry.registry import RegisteredModel
from components.shared.registry.versions import REFERENCE, Versions
from components.shared.storage.client import open_store


def reference_of(chosen: Chosen, store: str, package: PackageDocument, scratch: Path) -> Known:
    """Return the reference of a chosen model, whose files go to `scratch`. Raises UserError if it is damaged."""
    if "://" in chosen.name:
        folder = local_path(chosen.name)
        return reference_beside(chosen.name, package, evaluations_of(folder) if folder else [])
    name, _, version = chosen.name.partition("/")
    model = RegisteredModel(open_store(store, os.environ), name)
    return reference_of_version(model.versions, model.read_version(int(version)), scratch)


def reference_of_version(versions: Versions, document: VersionDocument, scratch: Path) -> Known:
    """Return the reference of a version, which is downloaded to folder `scratch`.

    Versions that were registered before there was one have none. Raises CorruptDataError if it is damaged.
    """
    if not {*REFERENCE} <= document.files.keys():
        reason = f"version {document.version} of {versions.name} has no reference; register a newer evaluation of it"
        return Known(None, reason)
    for name in REFERENCE:
        versions.download(document, name, scratch / name)
    with raise_as_corrupt():
        return Known(read_reference(scratch, document.classes))


def evaluations_of(package: Path) -> list[Path]:
    """Return where the evaluation of a package may be: in it, beside it, or where a local run leaves both."""
    return [package, package.parent / "evaluation", package.resolve().parent.parent / "evaluate" / "evaluation"]


def reference_beside(model: str, package: PackageDocument, folders: Sequence[Path]) -> Known:
    """Return the reference of a package in the first of the folders that has one for this model.

    Raises UserError if it is damaged.
    """
    reason = f"beside {model} is no evaluation with a drift.json"
    for folder in folders:
        if not (folder / REFERENCE[0]).is_file():
            continue
        judged = folder / "evaluation.json"
        if judged.is_file() and EvaluationDocument.read(judged).model_digest != package.model_digest:
            reason = f"{folder} is the evaluation of another model than {model}"
            continue
        return Known(read_reference(folder, package.classes))
    return Known(None, reason)
