"""The models of a store: of each, numbered versions, of which one is the champion. Writer and reader side by side.

models/<name>/register.json        versions, champion and every decision about it: one document, changed by
                                   compare-and-swap, so that a number is given once and there is one champion
models/<name>/versions/<n>/        the files of a version; `version.json`, written last, lists them by digest
models/<name>/versions/<n>/serving what KServe's storageUri wants: a model repository of Triton's

An object that is damaged or not as it is written here is told as CorruptDataError, with its address.
"""

import copy
import hashlib
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.shared.core.errors import CorruptDataError, TransientError, UserError, raise_as_corrupt
from components.shared.core.files import Document, json_bytes, parse_json, sha256_file
from components.shared.core.npy import npy_bytes, parse_npy
from components.shared.core.schema import (
    Rule,
    are_names,
    check_fields,
    has,
    is_count,
    is_fingerprint,
    is_list,
    is_map,
    is_number,
    is_sha256,
    is_share,
    is_text,
    is_time,
    one_of,
)
from components.shared.evaluation.exported_model import IS_TENSOR
from components.shared.parameters import check
from components.shared.storage.client import MAX_BYTES, Conflict, Entry, NoSuchObject, Store

FORMAT = "torch2kubeflow/register"
VERSION_FORMAT = "torch2kubeflow/version"
VERSION_BYTES = 2**20  # of the largest document of a version that is read
ATTEMPTS = 200  # to change a register that others change
MAX_WAIT_SECONDS = 2.0
MAX_BATCH = 256  # of a server


class Verdict(NamedTuple):
    """Whether a challenger takes the champion's place, the figures of their comparison (None without one), and why."""

    wins: bool
    figures: Document | None
    reason: str


def model_names(store: Store) -> list[str]:
    """The names of the models in a store, sorted."""
    found = (re.fullmatch(r"models/([^/]+)/register\.json", entry.name) for entry in store.list("models"))
    return sorted(match[1] for match in found if match)


def now() -> str:
    """The time, UTC, ISO 8601, as documents tell it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class RegisteredModel:
    """A model of a store by its name, which need not be there yet. Threads may share it.

    Its document, `read()`, is {name, champion, versions: [{version, package_digest, created, state, accuracy, images,
    test_split_digest, model_digest, run_id}], decisions: [{time, action, version, champion_before, champion_after,
    test_split_digest, figures, reason}]}. A version's state is `claimed`, `complete`, `pruning` while its files are
    being removed, or `pruned`; `created` is when it was claimed, the last time.
    """

    def __init__(self, store: Store, name: str) -> None:
        """UserError where `name` is none of a model."""
        check(model_name=name)
        if not name:
            raise UserError("a model's name is empty; give one of small letters, digits and -")
        self.store, self.name = store, name
        self._place = f"models/{name}/register.json"

    @property
    def program(self) -> str:
        """The ONNX program's path among the files of a version."""
        return f"serving/{self.name}/1/model.onnx"

    def uri(self, version: int) -> str:
        """The address of a version."""
        return self.store.uri(self._folder(version))

    def read(self) -> Document:
        """The register; one without versions where the model is not there."""
        return self._read()[0]

    def entry(self, version: int) -> Document:
        """What the register says of a version; UserError where there is none of this number."""
        return _entry(self.read(), version)

    def version(self, version: int) -> Document:
        """The document of a complete version: files, metrics, classes, input, output and provenance.

        NoSuchObject, with the version's state, where it is not there; UserError where there is none of this number.
        """
        place = self._document(version)
        try:
            content, _ = self.store.get_bytes(place, VERSION_BYTES)
        except NoSuchObject:
            state = self.entry(version)["state"]
            told = f"{self.store.uri(place)} does not exist: the version is {state}"
            raise NoSuchObject(f"{told}; register its package to have it back") from None
        document = _parse(content, VERSION_FORMAT, self.store.uri(place), _VERSION_FIELDS, "register its package again")
        paths = {path: document["files"].get(path) for path in self._paths()}
        if (document["name"], document["version"], document["files"]) != (self.name, version, paths):
            raise CorruptDataError(
                f"{self.store.uri(place)} is of another version or other files; register its package again"
            )
        return document

    def get_file(self, document: Document, path: str, target: Path) -> None:
        """Write a file of a version, whose document is given, to `target`: checked, or not at all."""
        name = f"{self._folder(document['version'])}/{path}"
        self.store.get_file(name, target, document["files"][path]["sha256"])

    def predictions(self, document: Document, images: int) -> NDArray[np.float32]:
        """What a version, whose document is given, predicted: probabilities (float32, images x classes)."""
        name = f"{self._folder(document['version'])}/predictions.npy"
        shape = (images, len(document["classes"]))
        content, _ = self.store.get_bytes(name, npy_bytes(shape, np.float32))
        if hashlib.sha256(content).hexdigest() != document["files"]["predictions.npy"]["sha256"]:
            raise CorruptDataError(
                f"{self.store.uri(name)} differs from its digest in version.json; register its package"
            )
        array = parse_npy(content, shape, np.float32)
        if array is None:
            raise CorruptDataError(f"{self.store.uri(name)} is no NumPy array of shape {shape}; register its package")
        return array

    def claim(self, package_digest: str, **facts: Any) -> Document:
        """The entry of the version of a package: the one it has already, or one of the next number, now its own.

        `facts` are accuracy, images, test_split_digest, model_digest and run_id. One that is not complete is claimed
        from now on, so that no pruning takes it for abandoned; UserError where its files are being removed.
        """

        def change(register: Document) -> None:
            known = [v for v in register["versions"] if v["package_digest"] == package_digest]
            if not known:
                number = len(register["versions"]) + 1
                entry = {"version": number, "package_digest": package_digest, "created": now(), "state": "claimed"}
                register["versions"].append({**entry, **facts})
            elif known[0]["state"] == "pruning":
                raise UserError(
                    f"{self.name} version {known[0]['version']} of the same package is being pruned, or that was "
                    "broken off; let `models prune` come to its end, and register it again"
                )
            elif known[0]["state"] != "complete":
                known[0].update(state="claimed", created=now())

        versions: list[Document] = self._change(change)["versions"]
        return next(v for v in versions if v["package_digest"] == package_digest)

    def keep(
        self, entry: Document, files: Mapping[str, tuple[Path, str]], facts: Document, scratch: str | Path
    ) -> None:
        """Send the files of the version whose entry is given and, last, its document.

        `files` holds, by path in the version, the local file and its SHA-256 (empty where it is not known), and `facts`
        the rest of the document. They must be the same for the same package: who sends them again writes only what is
        missing or damaged, and nothing that a server may be loading. `scratch` is a folder with room for the largest.
        """
        version = entry["version"]
        folder = self._folder(version)
        with tempfile.TemporaryDirectory(dir=scratch) as name:
            config, found = Path(name) / "config.pbtxt", Path(name) / "found"
            config.write_bytes(_triton_config(self.name, facts["input"], facts["output"]).encode())
            sent = {
                path: self._send(local, f"{folder}/{path}", sha256, found)
                for path, (local, sha256) in {**files, self._config: (config, "")}.items()
            }
        document = {
            "format": VERSION_FORMAT,
            "name": self.name,
            "version": version,
            "package_digest": entry["package_digest"],
            "created": entry["created"],
            "files": {path: sent[path] for path in self._paths()},
            **facts,
        }
        self._keep_document(document)

    def complete(self, version: int, judge: Callable[[Document], Verdict]) -> Document:
        """Mark a version as complete, let `judge` decide by the register about the champion, and return the register.

        What was decided about the version once is not decided again. UserError where its files were removed meanwhile.
        """

        def change(register: Document) -> None:
            entry = _entry(register, version)
            if entry["state"] in ("pruning", "pruned") or not self.store.exists(self._document(version)):
                raise UserError(f"{self.name} version {version} was pruned while it was registered; register it again")
            entry["state"] = "complete"
            if not decision_about(register, version):
                wins, figures, reason = judge(register)
                _decide(register, "register", version, version if wins else register["champion"], figures, reason)

        return self._change(change)

    def promote(self, version: int) -> Document:
        """Make a version the champion, whatever the figures; the register after it."""

        def change(register: Document) -> None:
            state = _entry(register, version)["state"]
            if state != "complete":
                raise UserError(f"{self.name} version {version} is {state}, so it cannot be the champion; give another")
            if register["champion"] != version:
                _decide(register, "promote", version, version, None, "by hand")

        return self._change(change)

    def rollback(self) -> Document:
        """Make the champion before the present one the champion again; the register after it."""

        def change(register: Document) -> None:
            before = self.champion_before(register)
            if before is None:
                raise UserError(f"{self.name} has no champion to go back to; promote a version")
            _decide(register, "rollback", before, before, None, "by hand")

        return self._change(change)

    @staticmethod
    def champion_before(register: Document) -> int | None:
        """The version to which a rollback goes back; None where there is none that is kept."""
        kept = {entry["version"] for entry in register["versions"] if entry["state"] == "complete"}
        before = [version for version in _reigns(register) if version in kept - {register["champion"]}]
        return before[-1] if before else None

    def prune(self, version: int) -> None:
        """Remove the files of a version that is not the champion; its number and entry stay.

        While they are being removed nobody can register it. What was broken off is done to its end by doing it again.
        """
        self._mark(version, "pruning")
        for found in [*self.files(version)]:
            self.store.remove(found.name)
        self._mark(version, "pruned")

    def files(self, version: int) -> Iterator[Entry]:
        """The objects of a version, whatever its state."""
        return self.store.list(self._folder(version))

    @property
    def _config(self) -> str:
        return f"serving/{self.name}/config.pbtxt"

    def _paths(self) -> list[str]:
        own = ["model.safetensors", "model.json", "model.pt2", "package.json", "predictions.npy"]
        return [*own, self.program, self._config]

    def _folder(self, version: int) -> str:
        return f"models/{self.name}/versions/{version}"

    def _document(self, version: int) -> str:
        return f"{self._folder(version)}/version.json"

    def _mark(self, version: int, state: str) -> None:
        def change(register: Document) -> None:
            if register["champion"] == version:
                raise UserError(f"{self.name} version {version} is the champion; promote another before it is pruned")
            _entry(register, version)["state"] = state

        self._change(change)

    def _send(self, path: Path, name: str, sha256: str, scratch: Path) -> Document:
        """Send a file if it is not there, intact; what is there is fetched to `scratch` for that."""
        sha256, size, found = sha256 or sha256_file(path), path.stat().st_size, self.store.stat(name)
        try:
            is_there = found is not None and found.size == size
            if is_there:
                self.store.get_file(name, scratch, sha256)
        except (CorruptDataError, NoSuchObject):
            is_there = False
        if not is_there:
            self.store.put_file(path, name, sha256)
        return {"sha256": sha256, "bytes": size}

    def _keep_document(self, document: Document) -> None:
        """Write the document of a version if it is missing or corrupt. Raises CorruptDataError if others are in it."""
        version, content = document["version"], json_bytes(document)
        place = self._document(version)
        try:
            self.store.put_bytes(content, place, if_absent=True)
            return
        except Conflict:
            there = self.store.stat(place)
        try:
            found = self.version(version)
        except CorruptDataError:
            with suppress(Conflict):  # with another registration that mends it, too
                self.store.put_bytes(content, place, if_absent=not there, if_match=there.etag if there else "")
            return
        if (found["package_digest"], found["files"]) != (document["package_digest"], document["files"]):
            raise CorruptDataError(
                f"{self.store.uri(place)} is of other files than those of the package {document['package_digest']}; "
                "prune the version and register it again"
            )

    def _read(self) -> tuple[Document, str]:
        """The register and its ETag, which is empty where it is not there."""
        try:
            content, etag = self.store.get_bytes(self._place, MAX_BYTES)
        except NoSuchObject:
            return {"format": FORMAT, "name": self.name, "champion": None, "versions": [], "decisions": []}, ""
        uri = self.store.uri(self._place)
        register = _parse(content, FORMAT, uri, _REGISTER_FIELDS, "write it anew")
        if register["name"] != self.name:
            raise CorruptDataError(f"{uri} is of the model {register['name']!r}; write it anew")
        return register, etag

    def _change(self, change: Callable[[Document], None]) -> Document:
        """Read the register, change it and write it, again and again while others come between; the register then."""
        for failures in range(ATTEMPTS):
            register, etag = self._read()
            before = copy.deepcopy(register)
            change(register)
            if register == before:
                return register
            try:
                self.store.put_bytes(json_bytes(register), self._place, if_absent=not etag, if_match=etag)
                return register
            except Conflict:
                time.sleep(random.uniform(0, min(0.05 * 2 ** min(failures, 9), MAX_WAIT_SECONDS)))
        raise TransientError(f"{self.store.uri(self._place)} is changed by others all the time; try again later")


def decision_about(register: Document, version: int) -> Document | None:
    """What was decided when a version was registered; None where that is to come."""
    made = (d for d in register["decisions"] if d["action"] == "register" and d["version"] == version)
    return next(made, None)


def times_decided(decisions: Sequence[Document], test_split_digest: str) -> int:
    """How often a test split has decided between two versions."""
    return sum(d["test_split_digest"] == test_split_digest and d["figures"] is not None for d in decisions)


def _entry(register: Document, version: int) -> Document:
    versions: list[Document] = register["versions"]
    if not 1 <= version <= len(versions):
        known = f"versions 1 to {len(versions)}" if versions else "none"
        raise UserError(f"{register['name']} has no version {version}; it has {known}")
    return versions[version - 1]


def _decide(
    register: Document, action: str, version: int, champion: int | None, figures: Document | None, reason: str
) -> None:
    decision = {
        "time": now(),
        "action": action,
        "version": version,
        "champion_before": register["champion"],
        "champion_after": champion,
        "test_split_digest": _entry(register, version)["test_split_digest"],
        "figures": figures,
        "reason": reason,
    }
    register["champion"] = champion
    register["decisions"].append(decision)


def _reigns(register: Document) -> list[int]:
    """The champions one after the other, without those from whom a rollback went back."""
    reigns: list[int] = []
    for decision in register["decisions"]:
        champion = decision["champion_after"]
        if decision["action"] == "rollback":
            while reigns and reigns[-1] != champion:
                reigns.pop()
        elif champion not in (None, decision["champion_before"]):
            reigns.append(champion)
    return reigns


def _triton_config(name: str, inputs: Document, outputs: Document) -> str:
    """The `config.pbtxt` of Triton; the dimension of the batch is not among `dims`."""
    return f"""name: "{name}"
platform: "onnxruntime_onnx"
max_batch_size: {MAX_BATCH}
input [ {{ name: "{inputs["name"]}" data_type: TYPE_UINT8 dims: {inputs["shape"][1:]} }} ]
output [ {{ name: "{outputs["name"]}" data_type: TYPE_FP32 dims: {outputs["shape"][1:]} }} ]
"""


def _parse(
    content: bytes, document_format: str, uri: str, rules: Mapping[str, Callable[[Document], bool]], remedy: str
) -> Document:
    """A document of a store; CorruptDataError where it has another format or a field is not as its rule says."""
    with raise_as_corrupt():
        document = parse_json(content, document_format, uri)
        check_fields(document, rules, uri, remedy)
    return document


def _or_none(rule: Rule) -> Rule:
    return lambda value: value is None or rule(value)


def _are_versions(value: Any) -> bool:
    """Numbered without holes, each of a package of its own."""
    if not is_list(value, _IS_ENTRY):
        return False
    packages = {entry["package_digest"] for entry in value}
    return len(packages) == len(value) and [entry["version"] for entry in value] == list(range(1, len(value) + 1))


_IS_ENTRY = has(
    version=is_count,
    package_digest=is_sha256,
    created=is_time,
    state=one_of("claimed", "complete", "pruning", "pruned"),
    accuracy=is_share,
    images=is_count,
    test_split_digest=is_sha256,
    model_digest=is_sha256,
    run_id=is_text,
)
_ARE_FIGURES = has(
    champion=is_count,
    champion_accuracy=is_share,
    challenger_accuracy=is_share,
    images=is_count,
    n01=is_count,
    n10=is_count,
    p_value=is_share,
    significance=is_share,
    rescored=lambda value: isinstance(value, bool),
    decided_before=is_count,
)
_IS_DECISION = has(
    time=is_time,
    action=one_of("register", "promote", "rollback"),
    version=is_count,
    champion_before=_or_none(is_count),
    champion_after=_or_none(is_count),
    test_split_digest=is_sha256,
    figures=_or_none(_ARE_FIGURES),
    reason=is_text,
)
_IS_PROVENANCE = has(
    data=has(name=is_text, source=is_text, raw_digest=is_text, parameters=lambda value: isinstance(value, dict)),
    dataset_digest=is_sha256,
    test_split_digest=is_sha256,
    model_digest=is_sha256,
    parameters=lambda value: isinstance(value, dict),
    seed=is_count,
    threads=is_count,
    torch=is_text,
    device=is_text,
    code_version=is_text,
    revision=is_text,
    image=is_text,
    run_id=is_text,
    time=is_time,
)

# In this order: each rule may rest on those above it.
_REGISTER_FIELDS: dict[str, Rule] = {
    "name": lambda d: is_text(d["name"]),
    "versions": lambda d: _are_versions(d["versions"]),
    "champion": lambda d: (
        d["champion"] is None
        or (
            is_count(d["champion"])
            and 1 <= d["champion"] <= len(d["versions"])
            and d["versions"][d["champion"] - 1]["state"] == "complete"
        )
    ),
    "decisions": lambda d: is_list(d["decisions"], _IS_DECISION),
}
_VERSION_FIELDS: dict[str, Rule] = {
    "name": lambda d: is_text(d["name"]),
    "version": lambda d: is_count(d["version"]),
    "package_digest": lambda d: is_sha256(d["package_digest"]),
    "created": lambda d: is_time(d["created"]),
    "files": lambda d: is_map(d["files"], is_fingerprint),
    "metrics": lambda d: is_map(d["metrics"], is_number),
    "classes": lambda d: are_names(d["classes"]),
    "input": lambda d: IS_TENSOR(d["input"]),
    "output": lambda d: IS_TENSOR(d["output"]),
    "provenance": lambda d: _IS_PROVENANCE(d["provenance"]),
}
