"""The models of a store: of each, numbered versions, of which one is the champion. Writer and reader side by side.

models/<name>/register.json        versions, champion and every decision about it: one document, changed by
                                   compare-and-swap, so that a number is given once and there is one champion
models/<name>/versions/<n>/        the files of a version; `version.json`, written last, lists them by digest
models/<name>/versions/<n>/serving what KServe's storageUri wants: a model repository of Triton's

An object that is damaged or not as it is written here is told as Damaged, with its address.
"""

import copy
import hashlib
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.shared.errors import Damaged, Outage, UserError
from components.shared.fields import (
    Rule,
    are_names,
    is_count,
    is_list,
    is_map,
    is_number,
    is_sha256,
    is_size,
    is_text,
)
from components.shared.files import Document, json_bytes, parse_json
from components.shared.npy import npy_bytes, parse_npy
from components.shared.parameters import check
from components.shared.storage import Conflict, NoSuchObject, Store

FORMAT = "torch2kubeflow/register"
VERSION_FORMAT = "torch2kubeflow/version"
REGISTER_BYTES, VERSION_BYTES = 64 * 2**20, 2**20  # the largest documents that are read
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
    test_split_digest, figures, reason}]}. A version's state is `claimed`, `complete` or `pruned`.
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
        """The document of a complete version: files, metrics, classes, input, output and provenance."""
        place = f"{self._folder(version)}/version.json"
        content, _ = self.store.get_bytes(place, VERSION_BYTES)
        document = _parse(content, VERSION_FORMAT, self.store.uri(place), _VERSION_FIELDS)
        paths = {path: document["files"].get(path) for path in self._paths()}
        if (document["name"], document["version"], document["files"]) != (self.name, version, paths):
            raise Damaged(f"{self.store.uri(place)} is of another version or other files; write it anew")
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
            raise Damaged(f"{self.store.uri(name)} differs from its digest in version.json; write it anew")
        array = parse_npy(content, shape, np.float32)
        if array is None:
            raise Damaged(f"{self.store.uri(name)} is no NumPy array of shape {shape}; write it anew")
        return array

    def claim(self, package_digest: str, **facts: Any) -> Document:
        """The entry of the version of a package: the one it has already, or one of the next number, now its own.

        `facts` are accuracy, images, test_split_digest, model_digest and run_id.
        """

        def change(register: Document) -> None:
            known = [v for v in register["versions"] if v["package_digest"] == package_digest]
            if not known:
                number = len(register["versions"]) + 1
                entry = {"version": number, "package_digest": package_digest, "created": now(), "state": "claimed"}
                register["versions"].append({**entry, **facts})
            elif known[0]["state"] == "pruned":
                known[0]["state"] = "claimed"

        versions: list[Document] = self._change(change)["versions"]
        return next(v for v in versions if v["package_digest"] == package_digest)

    def keep(self, entry: Document, files: Mapping[str, tuple[Path, str]], facts: Document) -> None:
        """Send the files of the version whose entry is given and, last, its document.

        `files` holds, by path in the version, the local file and its SHA-256 (empty where it is not known), and `facts`
        the rest of the document. They must be the same for the same package: whoever sends them again changes nothing.
        """
        version = entry["version"]
        folder = self._folder(version)
        config = _triton_config(self.name, facts["input"], facts["output"]).encode()
        sent = {path: self._send(local, f"{folder}/{path}", sha256) for path, (local, sha256) in files.items()}
        self.store.put_bytes(config, f"{folder}/{self._config}")
        sent[self._config] = {"sha256": hashlib.sha256(config).hexdigest(), "bytes": len(config)}
        document = {
            "format": VERSION_FORMAT,
            "name": self.name,
            "version": version,
            "package_digest": entry["package_digest"],
            "created": entry["created"],
            "files": {path: sent[path] for path in self._paths()},
            **facts,
        }
        try:
            self.store.put_bytes(json_bytes(document), f"{folder}/version.json", if_absent=True)
        except Conflict:
            found = self.version(version)
            if (found["package_digest"], found["files"]) != (document["package_digest"], document["files"]):
                raise Damaged(
                    f"{self.uri(version)}/version.json is of other files than those of the package "
                    f"{document['package_digest']}; prune the version and register it again"
                ) from None

    def complete(self, version: int, judge: Callable[[Document], Verdict]) -> Document:
        """Mark a version as complete, let `judge` decide by the register about the champion, and return the register.

        What was decided about the version once is not decided again.
        """

        def change(register: Document) -> None:
            entry = _entry(register, version)
            if entry["state"] == "pruned":
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
        """Remove the files of a version that is not the champion; its number and entry stay."""

        def change(register: Document) -> None:
            if register["champion"] == version:
                raise UserError(f"{self.name} version {version} is the champion; promote another before it is pruned")
            _entry(register, version)["state"] = "pruned"

        self._change(change)
        for found in [*self.store.list(self._folder(version))]:
            self.store.remove(found.name)
        self._change(change)  # whoever registered it meanwhile did so in vain

    @property
    def _config(self) -> str:
        return f"serving/{self.name}/config.pbtxt"

    def _paths(self) -> list[str]:
        own = ["model.safetensors", "model.json", "model.pt2", "package.json", "predictions.npy"]
        return [*own, self.program, self._config]

    def _folder(self, version: int) -> str:
        return f"models/{self.name}/versions/{version}"

    def _send(self, path: Path, name: str, sha256: str) -> Document:
        return {"sha256": self.store.put_file(path, name, sha256), "bytes": path.stat().st_size}

    def _read(self) -> tuple[Document, str]:
        """The register and its ETag, which is empty where it is not there."""
        try:
            content, etag = self.store.get_bytes(self._place, REGISTER_BYTES)
        except NoSuchObject:
            return {"format": FORMAT, "name": self.name, "champion": None, "versions": [], "decisions": []}, ""
        uri = self.store.uri(self._place)
        register = _parse(content, FORMAT, uri, _REGISTER_FIELDS)
        if register["name"] != self.name:
            raise Damaged(f"{uri} is of the model {register['name']!r}; write it anew")
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
        raise Outage(f"{self.store.uri(self._place)} is changed by others all the time; try again later")


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


def _parse(content: bytes, document_format: str, uri: str, fields: Mapping[str, Rule]) -> Document:
    """A document of a store; Damaged where it has another format or a field is not as its rule says."""
    try:
        document = parse_json(content, document_format, uri)
    except UserError as error:
        raise Damaged(str(error)) from None
    for field, fits in fields.items():
        if field not in document or not fits(document):
            raise Damaged(f"{uri} has no proper field {field!r}; write it anew")
    return document


def _has(**rules: Rule) -> Rule:
    """The rule of an object with these fields and no others."""
    return lambda value: (
        isinstance(value, dict)
        and value.keys() == rules.keys()
        and all(fits(value[field]) for field, fits in rules.items())
    )


def _or_none(rule: Rule) -> Rule:
    return lambda value: value is None or rule(value)


def _one_of(*texts: str) -> Rule:
    return lambda value: value in texts


def _is_share(value: object) -> bool:
    return isinstance(value, float) and 0 <= value <= 1


def _is_shape(value: Any) -> bool:
    match value:
        case ["batch", *sizes]:
            return len(sizes) > 0 and all(map(is_size, sizes))
    return False


def _are_versions(value: Any) -> bool:
    """Numbered without holes, each of a package of its own."""
    if not is_list(value, _IS_ENTRY):
        return False
    packages = {entry["package_digest"] for entry in value}
    return len(packages) == len(value) and [entry["version"] for entry in value] == list(range(1, len(value) + 1))


_IS_ENTRY = _has(
    version=is_count,
    package_digest=is_sha256,
    created=is_text,
    state=_one_of("claimed", "complete", "pruned"),
    accuracy=_is_share,
    images=is_count,
    test_split_digest=is_sha256,
    model_digest=is_sha256,
    run_id=is_text,
)
_ARE_FIGURES = _has(
    champion=is_count,
    champion_accuracy=_is_share,
    challenger_accuracy=_is_share,
    images=is_count,
    n01=is_count,
    n10=is_count,
    p_value=_is_share,
    significance=_is_share,
    rescored=lambda value: isinstance(value, bool),
    decided_before=is_count,
)
_IS_DECISION = _has(
    time=is_text,
    action=_one_of("register", "promote", "rollback"),
    version=is_count,
    champion_before=_or_none(is_count),
    champion_after=_or_none(is_count),
    test_split_digest=is_sha256,
    figures=_or_none(_ARE_FIGURES),
    reason=is_text,
)
_IS_TENSOR = _has(name=is_text, dtype=is_text, shape=_is_shape)
_IS_PROVENANCE = _has(
    data=_has(name=is_text, source=is_text, raw_digest=is_text, parameters=lambda value: isinstance(value, dict)),
    dataset_digest=is_sha256,
    test_split_digest=is_sha256,
    model_digest=is_sha256,
    parameters=lambda value: isinstance(value, dict),
    seed=is_count,
    threads=is_count,
    torch=is_text,
    code_version=is_text,
    revision=is_text,
    image=is_text,
    run_id=is_text,
    time=is_text,
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
    "created": lambda d: is_text(d["created"]),
    "files": lambda d: is_map(d["files"], _has(sha256=is_sha256, bytes=is_count)),
    "metrics": lambda d: is_map(d["metrics"], is_number),
    "classes": lambda d: are_names(d["classes"]),
    "input": lambda d: _IS_TENSOR(d["input"]),
    "output": lambda d: _IS_TENSOR(d["output"]),
    "provenance": lambda d: _IS_PROVENANCE(d["provenance"]),
}
