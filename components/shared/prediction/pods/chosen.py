"""The model that predicts: a version in a store, the champion or another, or a package in a folder.

It is chosen once, and named from then on by what never changes: model and version, or a URI, and the package's digest.
"""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

from components.shared.core.errors import UserError
from components.shared.data.prepared_data import local_path
from components.shared.evaluation.exported_model import PackageDocument
from components.shared.parameters.common import StoreUri, Threads
from components.shared.parameters.prediction import CHAMPION, VERSIONS, Drift
from components.shared.parameters.preparation import ReadingRecipe
from components.shared.registry.registry import RegisteredModel, champion_of, named_or_only
from components.shared.storage.client import open_store

PROGRAM, PACKAGE = "model.onnx", "package.json"


class Chosen(NamedTuple):
    """A model that predicts, as the table names it (`digits/7`, or the URI of a folder), and its package's digest."""

    name: str
    package_digest: str

    @property
    def folder(self) -> str:
        """Return the name of its folder below those of all predictions in a store."""
        return "packages" if "://" in self.name else self.name.partition("/")[0]


class ModelRecipe(StoreUri):
    """The model that was chosen, and the store."""

    model: str = ""  # digits/7, or the URI of a folder
    package_digest: str = ""

    @property
    def chosen(self) -> Chosen:
        """Return the model."""
        return Chosen(self.model, self.package_digest)


class CollectRecipe(ModelRecipe, Drift, ReadingRecipe):
    """All that step collect needs to know, also to train again on the same pictures."""

    data: str = ""


class ShareRecipe(ModelRecipe, Threads):
    """All that the pod of a share needs to know."""

    pod: int = 0  # from 0
    pods: int = 1


def choose_model(store: str, model_name: str, model: str) -> Chosen:
    """Return the model that parameter `model` names at this moment, of those named `model_name` in the store.

    Raises UserError if there is none.
    """
    if "://" in model:
        return Chosen(model.rstrip("/"), _read_package(model.rstrip("/")).digest)
    opened = open_store(store, os.environ)
    found = named_or_only(opened, model_name, "give model_name=NAME")
    remedy = f"give model={VERSIONS}N, or promote a version"
    version = champion_of(found, remedy) if model == CHAMPION else int(model.removeprefix(VERSIONS))
    return Chosen(f"{found.name}/{version}", found.read_version(version).package_digest)


def fetch_package(chosen: Chosen, store: str, folder: Path) -> None:
    """Write `model.onnx` and `package.json` of the model to an existing folder.

    Raises UserError if they are not there, or the package is not the one that was chosen.
    """
    if "://" in chosen.name:
        for name in (PROGRAM, PACKAGE):
            _copy(chosen.name, name, folder / name)
    else:
        _fetch_version(chosen.name, store, folder)
    found = PackageDocument.read(folder / PACKAGE).digest
    if found != chosen.package_digest:
        message = f"the package of {chosen.name} was {chosen.package_digest} when the run began and is {found} now"
        raise UserError(message, "run it again")


def _fetch_version(name: str, store: str, folder: Path) -> None:
    model_name, _, version = name.partition("/")
    model = RegisteredModel(open_store(store, os.environ), model_name)
    model.versions.download_package(model.read_version(int(version)), folder)


def _read_package(folder: str) -> PackageDocument:
    """Return the document of the package in a folder. Raises UserError if the package is not whole."""
    if local := local_path(folder):
        has_program, document = (local / PROGRAM).is_file(), PackageDocument.read(local / PACKAGE)
    else:
        store = open_store(folder, os.environ)
        has_program = store.exists(PROGRAM)
        document = PackageDocument.parse(store.get_bytes(PACKAGE)[0], f"{folder}/{PACKAGE}")
    if not has_program:
        message = f"{folder} has no {PROGRAM}"
        raise UserError(message, f"give the folder of a whole package, or model={VERSIONS}N for a version of the store")
    return document


def _copy(folder: str, name: str, target: Path) -> None:
    if local := local_path(folder):
        shutil.copyfile(local / name, target)
    else:
        open_store(folder, os.environ).get_file(name, target)
