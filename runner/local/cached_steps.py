"""What an earlier run left of each step that it did, beside KFP's own record, by which a later run may reuse it.

KFP looks only whether an artifact's folder exists. Here its files must be those that the step left, by name, size and
time, and a record that is damaged, or names what is not in the folder of the runs, counts as none.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfp.dsl import Artifact

from components.shared.core.document import Document, Items, Sha256
from components.shared.core.errors import UserError
from components.shared.core.files import sha256_file
from runner.terminal import note


class CachedStepDocument(Document):
    """`<key>.files` in the cache of local steps: KFP's record of a step, and the files that the step left."""

    FORMAT = "torch2kubeflow/cached-step"
    REMEDY = "run the pipeline again"

    record: Sha256  # of `<key>.json`
    files: dict[str, Items[list[str | int]]]  # by the artifacts' paths: names below them, sizes and times


class CachedSteps:
    """The steps that the runs in a folder have done, by KFP's records of them."""

    def __init__(self, runs: Path) -> None:
        self._runs = runs.resolve()

    def write(self, record: Path, outputs: Mapping[str, Any]) -> None:
        """Note what a step left, of which KFP has written its record."""
        CachedStepDocument(record=sha256_file(record), files=_list_files(outputs)).write(_path(record))

    def is_intact(self, record: Path) -> bool:
        """Return whether KFP's record of a step is there, as it was written; say so if it is not."""
        return record.is_file() and _path(record).is_file() and _read(record) is not None

    def is_reusable(self, record: Path, outputs: Mapping[str, Any]) -> bool:
        """Return whether a step's outputs, which an intact record has, are those that the step left."""
        outside = [path for path in _paths(outputs) if not self._holds(path)]
        if outside:
            _say_ignored(f"{record} names {outside[0]}, which is not in {self._runs}")
            return False
        found = _read(record)
        return found is not None and found.files == _list_files(outputs)

    def _holds(self, path: Path) -> bool:
        return Path(os.path.abspath(path)).is_relative_to(self._runs)


def _read(record: Path) -> CachedStepDocument | None:
    try:
        found = CachedStepDocument.read(_path(record))
        if found.record != sha256_file(record):
            raise UserError(f"{record} is not as it was written")
    except UserError as error:
        _say_ignored(error.message)
        return None
    return found


def _say_ignored(reason: str) -> None:
    note(f"a step is done again: {reason}")


def _path(record: Path) -> Path:
    return record.with_suffix(".files")


def _paths(outputs: Mapping[str, Any]) -> list[Path]:
    """Return the paths of all artifacts in the outputs of a step, sorted."""
    lists = [output if isinstance(output, list) else [output] for output in outputs.values()]
    return sorted(Path(output.uri) for one in lists for output in one if isinstance(output, Artifact))


def _list_files(outputs: Mapping[str, Any]) -> dict[str, list[list[str | int]]]:
    """Return the files of a step's artifacts, by the artifacts' paths: names, sizes and times."""
    found = {
        path: [path, *sorted(path.rglob("*"))] for path in _paths(outputs) if path.exists()
    }  # not each port writes a file
    return {str(path): [_facts(file, path) for file in files] for path, files in found.items()}


def _facts(file: Path, folder: Path) -> list[str | int]:
    found = file.lstat()
    facts = [] if file.is_dir() else [found.st_size, found.st_mtime_ns]  # a folder's time changes with a look into it
    return [str(file.relative_to(folder)), *facts]
