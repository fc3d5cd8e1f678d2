"""Where the reference for drift of a model is: among the files of its version, or in the evaluation of its package."""

from collections.abc import Sequence
from pathlib import Path

from components.shared.core.errors import raise_as_corrupt
from components.shared.evaluation.document import EvaluationDocument
from components.shared.prediction.batch import Program
from components.shared.prediction.drift import read_reference
from components.shared.registry.document import VersionDocument
from components.shared.registry.versions import REFERENCE, Versions


def with_reference_of_version(
    program: Program, versions: Versions, document: VersionDocument, scratch: Path
) -> Program:
    """Return the program of a version with its reference, which is downloaded to folder `scratch`.

    Versions that were registered before there was one have none. Raises CorruptDataError if it is damaged.
    """
    if not {*REFERENCE} <= document.files.keys():
        reason = f"version {document.version} of {versions.name} has no reference; register a newer evaluation of it"
        return program._replace(reference=None, no_reference=reason)
    for name in REFERENCE:
        versions.download(document, name, scratch / name)
    with raise_as_corrupt():
        found = read_reference(scratch, document.classes)
    return program._replace(reference=found)


def with_reference_beside(program: Program, folders: Sequence[Path]) -> Program:
    """Return the program of a package with the reference in the first of the folders that has one for this model.

    Raises UserError if it is damaged.
    """
    reason = f"beside {program.model} is no evaluation with a drift.json"
    for folder in folders:
        if not (folder / REFERENCE[0]).is_file():
            continue
        judged = folder / "evaluation.json"
        if judged.is_file() and EvaluationDocument.read(judged).model_digest != program.package.model_digest:
            reason = f"{folder} is the evaluation of another model than {program.model}"
            continue
        found = read_reference(folder, program.package.classes)
        return program._replace(reference=found)
    return program._replace(reference=None, no_reference=reason)
