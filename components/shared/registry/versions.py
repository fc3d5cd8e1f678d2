"""The files of a model's versions: upload, read and delete.

models/<name>/versions/<n>/version.json  written last; lists the files of the version by digest
models/<name>/versions/<n>/serving/      a model repository of Triton's
models/<name>/versions/<n>/samples.npy   test images (uint8, N x C x H x W), and samples_predictions.npy what the model
                                         predicts of them (float32, N x classes)
models/<name>/versions/<n>/drift.json    the reference for drift, with reference.npy

Damaged objects raise CorruptDataError with their URI.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.shared.core import log
from components.shared.core.document import MAX_COUNT, Fingerprint
from components.shared.core.errors import CorruptDataError, raise_as_corrupt
from components.shared.core.files import sha256_file
from components.shared.core.npy import npy_bytes, parse_npy
from components.shared.data.dataset import Images
from components.shared.evaluation.exported_model import PackageDocument
from components.shared.registry import triton
from components.shared.registry.document import Provenance, VersionDocument, VersionEntry
from components.shared.storage.client import Entry, Store
from components.shared.storage.errors import Conflict, NoSuchObject, Unreadable

SAMPLES = ("samples.npy", "samples_predictions.npy")
REFERENCE = ("drift.json", "reference.npy")
OPTIONAL = {*SAMPLES, *REFERENCE}  # of which older versions have none


class Versions:
    """The versions of one model in the store. Threads may share it."""

    def __init__(self, store: Store, name: str) -> None:
        """Make no request; `name` is that of the model."""
        self.store, self.name = store, name
        self.onnx_path = triton.onnx_path(name)

    def uri(self, version: int) -> str:
        """Return the URI of a version."""
        return self.store.uri(self._folder(version))

    def list_files(self, version: int) -> Iterator[Entry]:
        """Yield the objects of a version, even if it is incomplete."""
        return self.store.list(self._folder(version))

    def is_uploaded(self, version: int) -> bool:
        """Return whether a version has its document, which is written last."""
        return self.store.exists(self._document_name(version))

    def read(self, version: int) -> VersionDocument:
        """Return the document of a version: files, metrics, classes, input, output and provenance.

        Raises NoSuchObject if it is not there.
        """
        name = self._document_name(version)
        content, _ = self.store.get_bytes(name, VersionDocument.MAX_BYTES)
        with raise_as_corrupt():
            document = VersionDocument.parse(content, self.store.uri(name))
        if (document.name, document.version, {*document.files} - OPTIONAL) != (self.name, version, {*self._paths()}):
            raise CorruptDataError(
                f"{self.store.uri(name)} belongs to another version or lists other files", VersionDocument.REMEDY
            )
        return document

    def download(self, document: VersionDocument, path: str, target: Path) -> None:
        """Write one file of the version that `document` describes to `target`, if it matches its digest."""
        self.store.get_file(f"{self._folder(document.version)}/{path}", target, document.files[path].sha256)

    def download_package(self, document: VersionDocument, folder: Path) -> None:
        """Write `package.json` and `model.onnx` of the version that `document` describes to a folder, as above."""
        self.download(document, "package.json", folder / "package.json")
        self.download(document, self.onnx_path, folder / "model.onnx")

    def read_predictions(self, document: VersionDocument, images: int) -> NDArray[np.float32]:
        """Return what the version that `document` describes predicted: probabilities (float32, images x classes)."""
        return self._read_array(document, "predictions.npy", (images, len(document.classes)), np.float32)

    def read_samples(self, document: VersionDocument) -> tuple[Images, NDArray[np.float32]] | None:
        """Return the test images that were kept (uint8, N x C x H x W) and what the version predicts of them.

        The predictions are probabilities (float32, N x classes). Returns None if none were kept.
        """
        if not document.samples:
            return None
        images = self._read_array(document, SAMPLES[0], (document.samples, *document.input.sizes), np.uint8)
        predictions = self._read_array(document, SAMPLES[1], (document.samples, len(document.classes)), np.float32)
        return images, predictions

    def upload(
        self,
        entry: VersionEntry,
        files: Mapping[str, tuple[Path, str]],
        package: PackageDocument,
        provenance: Provenance,
        scratch: str | Path,
        samples: int = 0,
    ) -> None:
        """Upload the files of the version that `entry` of the registry describes and, last, its document.

        `samples` is the number of images in samples.npy, if that is among the files. `files` maps paths in the version
        to a local file and its SHA-256 (empty if unknown). Equal packages must give equal files: a second upload then
        writes only what is missing or damaged, and never a file that a server may be loading. `scratch` is a folder
        with room for the largest file. Raises UserError, with nothing uploaded, if the document would be too large.
        """
        folder, unknown = self._folder(entry.version), Fingerprint(sha256="0" * 64, bytes=MAX_COUNT - 1)
        document = VersionDocument(
            name=self.name,
            version=entry.version,
            package_digest=entry.package_digest,
            created=entry.created,
            files={path: unknown for path in [*self._paths(), *sorted(OPTIONAL & files.keys())]},
            samples=samples,
            metrics=package.metrics,
            classes=package.classes,
            input=package.input,
            output=package.output,
            provenance=provenance,
        )
        document.to_json()
        with tempfile.TemporaryDirectory(dir=scratch) as name:
            config, stored = Path(name) / "config.pbtxt", Path(name) / "stored"
            config.write_bytes(self._config(entry, package))
            uploaded = {
                path: self._upload_file(local, f"{folder}/{path}", sha256, stored)
                for path, (local, sha256) in {**files, triton.config_path(self.name): (config, "")}.items()
            }
        found = {path: uploaded[path] for path in document.files}
        self._write_document(document.model_copy(update={"files": found}))

    def delete(self, version: int) -> None:
        """Delete the files of a version."""
        for entry in [*self.list_files(version)]:
            self.store.remove(entry.name)

    def _folder(self, version: int) -> str:
        return f"models/{self.name}/versions/{version}"

    def _document_name(self, version: int) -> str:
        return f"{self._folder(version)}/version.json"

    def _paths(self) -> list[str]:
        artifacts = ["model.safetensors", "model.json", "model.pt2", "package.json", "predictions.npy"]
        return [*artifacts, self.onnx_path, triton.config_path(self.name)]

    def _read_array(
        self, document: VersionDocument, path: str, shape: tuple[int, ...], dtype: type[np.generic]
    ) -> NDArray[Any]:
        name = f"{self._folder(document.version)}/{path}"
        content, _ = self.store.get_bytes(name, npy_bytes(shape, dtype))
        if hashlib.sha256(content).hexdigest() != document.files[path].sha256:
            message = f"{self.store.uri(name)} differs from its digest in version.json"
            raise CorruptDataError(message, VersionDocument.REMEDY)
        array = parse_npy(content, shape, dtype)
        if array is None:
            message = f"{self.store.uri(name)} is not a NumPy array of shape {shape}"
            raise CorruptDataError(message, VersionDocument.REMEDY)
        return array

    def _config(self, entry: VersionEntry, package: PackageDocument) -> bytes:
        """Return Triton's configuration; of a version that has one without the digest, that one: it must not change."""
        old, new = (
            triton.config(self.name, package.input, package.output, digest).encode()
            for digest in ("", entry.package_digest)
        )
        try:
            stored = self.read(entry.version).files[triton.config_path(self.name)]
        except (CorruptDataError, NoSuchObject, Unreadable):
            return new
        return old if stored.sha256 == hashlib.sha256(old).hexdigest() else new

    def _upload_file(self, path: Path, name: str, sha256: str, scratch: Path) -> Fingerprint:
        """Upload a file unless the store has it intact, which is found out by downloading it to `scratch`."""
        sha256, size = sha256 or sha256_file(path), path.stat().st_size
        try:
            stored = self.store.stat(name)
            is_intact = stored is not None and stored.size == size
            if is_intact:
                self.store.get_file(name, scratch, sha256)
        except (CorruptDataError, NoSuchObject, Unreadable) as error:
            log.info(f"{self.store.uri(name)} is uploaded again: {error.message}")
            is_intact = False
        if not is_intact:
            self.store.put_file(path, name, sha256)
        return Fingerprint(sha256=sha256, bytes=size)

    def _write_document(self, document: VersionDocument) -> None:
        """Write `version.json` unless it can be read. Raises CorruptDataError if it lists other files."""
        name, content = self._document_name(document.version), document.to_json()
        try:
            self.store.put_bytes(content, name, if_absent=True)
            return
        except Conflict:
            stored = self.store.stat(name)
        try:
            found = self.read(document.version)
        except (CorruptDataError, Unreadable):
            with suppress(Conflict):  # another registration of the same package repaired it first
                self.store.put_bytes(content, name, if_absent=not stored, if_match=stored.etag if stored else "")
            return
        if (found.package_digest, _required(found)) != (document.package_digest, _required(document)):
            raise CorruptDataError(
                f"{self.store.uri(name)} lists other files than those of the package {document.package_digest}",
                "prune the version and register the package again",
            )


def _required(document: VersionDocument) -> dict[str, Fingerprint]:
    """Return the files of a version that its package determines."""
    return {path: file for path, file in document.files.items() if path not in OPTIONAL}
