"""The model registry, against a real S3 server: pytest tests/registry/test_registry.py"""

import copy
import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from components.shared.core.document import Fingerprint
from components.shared.core.errors import CorruptDataError, UserError
from components.shared.registry.champion import Verdict
from components.shared.registry.document import RegistryDocument, VersionDocument
from components.shared.registry.registry import DECISION_BYTES, RegisteredModel, StillNeeded, model_names
from components.shared.storage.client import Store
from tests.small_packages import package_of, provenance_of

pytestmark = pytest.mark.slow

WINS, LOSES = Verdict(True, None, "better"), Verdict(False, None, "worse")
FACTS: dict[str, Any] = {
    "accuracy": 0.5,
    "images": 10,
    "test_split_digest": "a" * 64,
    "model_digest": "b" * 64,
    "run_id": "run",
}
PACKAGE = package_of(classes=["a", "b"], image_shape=[1, 4, 4])
STRANGE: list[Any] = [None, True, -1, 2**60, 1.5, float("nan"), "x", "../x", [], [[]], {}, {"x": {}}, [None] * 3]


@pytest.fixture
def model(store: Store) -> RegisteredModel:
    return RegisteredModel(store, "m")


def digest(number: int) -> str:
    return f"{number:064x}"


def complete(model: RegisteredModel, *verdicts: Verdict) -> None:
    """Register the packages 1, 2 and so on, with no file but an empty document."""
    for number, verdict in enumerate(verdicts, 1):
        model.finalize(reserved(model, number), partial(judge, verdict))


def judge(verdict: Verdict, _: RegistryDocument) -> Verdict:
    return verdict


def reserved(model: RegisteredModel, number: int) -> int:
    """Reserve a version, with no file but an empty document."""
    version = model.reserve_version(digest(number), **FACTS).version
    model.store.put_bytes(b"", f"models/m/versions/{version}/version.json")
    return version


def register(model: RegisteredModel, folder: Path) -> int:
    """Register package 1 with all files."""
    entry = model.reserve_version(digest(1), **FACTS)
    model.versions.upload(entry, files(model, folder), PACKAGE, provenance_of(), folder)
    model.finalize(entry.version, lambda _: WINS)
    return entry.version


def files(model: RegisteredModel, folder: Path) -> dict[str, tuple[Path, str]]:
    """Return the files to upload for a version."""
    names = [
        "model.safetensors",
        "model.json",
        "model.pt2",
        "package.json",
        "predictions.npy",
        model.versions.onnx_path,
    ]
    for name in names:
        (folder / Path(name).name).write_bytes(name.encode())
    return {name: (folder / Path(name).name, "") for name in names}


def champions(model: RegisteredModel) -> list[tuple[str, int | None, int | None]]:
    return [(d.action, d.champion_before, d.champion_after) for d in model.read().decisions]


def test_an_empty_store_has_no_models(store: Store, model: RegisteredModel) -> None:
    assert model_names(store) == []
    assert model.read().versions == [] and model.read().champion is None
    with pytest.raises(UserError, match="m has no version 1; it has none"):
        model.promote(1)
    assert not list(store.list())


def test_models_are_listed_by_name(store: Store) -> None:
    for name in ("b", "a"):
        RegisteredModel(store, name).reserve_version(digest(1), **FACTS)
    store.put_bytes(b"", "models/a/versions/1/register.json")
    assert model_names(store) == ["a", "b"]


@pytest.mark.parametrize("name", ["", "A", "a/b", "..", "-a"])
def test_invalid_model_names_are_refused(store: Store, name: str) -> None:
    with pytest.raises(UserError, match="letters, digits and -"):
        RegisteredModel(store, name)


def test_a_package_has_one_version_number(model: RegisteredModel) -> None:
    assert [model.reserve_version(digest(n), **FACTS).version for n in (1, 2, 1, 3, 2)] == [1, 2, 1, 3, 2]
    assert [version.state for version in model.read().versions] == ["claimed"] * 3
    assert model.entry(2).package_digest == digest(2)


def test_a_version_is_judged_once(model: RegisteredModel) -> None:
    complete(model, WINS, WINS)
    model.finalize(1, lambda _: pytest.fail("judged twice"))
    assert champions(model) == [("register", None, 1), ("register", 1, 2)]


def test_promotion(model: RegisteredModel) -> None:
    complete(model, WINS, LOSES)
    assert model.promote(2).champion == 2
    assert model.promote(2).champion == 2
    assert champions(model) == [("register", None, 1), ("register", 1, 1), ("promote", 1, 2)]
    model.reserve_version(digest(3), **FACTS)
    with pytest.raises(UserError, match="m version 3 is claimed"):
        model.promote(3)
    for absent in (0, 4, -1):
        with pytest.raises(UserError, match=f"m has no version {absent}; it has versions 1 to 3"):
            model.promote(absent)


def test_rollbacks_restore_one_champion_at_a_time(model: RegisteredModel) -> None:
    complete(model, WINS, WINS, LOSES, WINS)
    assert [model.rollback().champion for _ in range(2)] == [2, 1]
    with pytest.raises(UserError, match="m has no champion to go back to"):
        model.rollback()
    model.promote(3)
    model.promote(1)
    assert [model.rollback().champion for _ in range(2)] == [3, 1]
    with pytest.raises(UserError, match="m has no champion to go back to"):
        model.rollback()


def test_a_rollback_skips_pruned_versions(model: RegisteredModel) -> None:
    complete(model, WINS, WINS, WINS)
    model.prune(2)
    assert model.rollback().champion == 1


def test_pruning_leaves_only_the_number_of_a_version(model: RegisteredModel, store: Store, tmp_path: Path) -> None:
    version = register(model, tmp_path)
    with pytest.raises(UserError, match="m version 1 is the champion"):
        model.prune(version)
    assert model.read_version(version).files.keys() >= {"serving/m/1/model.onnx", "serving/m/config.pbtxt"}
    model.finalize(reserved(model, 2), lambda _: WINS)
    model.prune(version)
    model.prune(version)
    assert [entry.name for entry in store.list("models")] == [
        "models/m/register.json",
        "models/m/versions/2/version.json",
    ]
    with pytest.raises(UserError, match="the version is pruned; register its package to restore it"):
        model.read_version(version)
    with pytest.raises(UserError, match="m has no version 7; it has versions 1 to 2"):
        model.read_version(7)
    assert [entry.state for entry in model.read().versions] == ["pruned", "complete"]
    assert model.reserve_version(digest(3), **FACTS).version == 3
    with pytest.raises(UserError, match="m version 1 is pruned, so it cannot be the champion"):
        model.promote(version)


def test_an_interrupted_pruning_can_be_repeated(
    model: RegisteredModel, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(model, tmp_path)
    model.finalize(reserved(model, 2), lambda _: WINS)
    with monkeypatch.context() as monkeypatch, pytest.raises(KeyboardInterrupt):
        monkeypatch.setattr(Store, "remove", interrupt)
        model.prune(1)
    assert model.read().versions[0].state == "pruning"
    with pytest.raises(UserError, match="m version 1 holds the same package and is being pruned"):
        model.reserve_version(digest(1), **FACTS)
    model.prune(1)
    assert not list(store.list("models/m/versions/1"))
    register(model, tmp_path)
    assert model.read().versions[0].state == "complete"


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_version_whose_files_are_missing_is_not_finalized(model: RegisteredModel, store: Store) -> None:
    version = reserved(model, 1)
    store.remove("models/m/versions/1/version.json")
    with pytest.raises(UserError, match="was pruned while it was registered; register it again"):
        model.finalize(version, lambda _: WINS)
    assert model.read().champion is None and model.read().versions[0].state == "claimed"


def test_reserving_again_renews_the_reservation(model: RegisteredModel, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as monkeypatch:
        monkeypatch.setattr("components.shared.registry.registry.now", lambda: "2026-01-01T00:00:00+00:00")
        assert model.reserve_version(digest(1), **FACTS).created == "2026-01-01T00:00:00+00:00"
    assert model.reserve_version(digest(1), **FACTS).created > "2026-01-01T00:00:00+00:00"
    assert len(model.read().versions) == 1


def test_only_damaged_and_missing_files_are_uploaded_again(
    model: RegisteredModel, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(model, tmp_path)
    put_file, sent = Store.put_file, list[str]()

    def send(store: Store, path: Path, name: str, sha256: str) -> str:
        sent.append(name)
        return put_file(store, path, name, sha256)

    monkeypatch.setattr(Store, "put_file", send)
    register(model, tmp_path)
    assert not sent
    damaged = [f"models/m/versions/1/{name}" for name in ("model.json", "serving/m/config.pbtxt")]
    contents = [store.get_bytes(name)[0] for name in damaged]
    store.put_bytes(contents[0][:-1] + b"?", damaged[0])
    store.remove(damaged[1])
    register(model, tmp_path)
    assert sent == damaged
    assert [store.get_bytes(name)[0] for name in damaged] == contents


def test_an_old_triton_configuration_stays(model: RegisteredModel, store: Store, tmp_path: Path) -> None:
    """That of versions before it told the package's digest: version.json lists it, and a server may have loaded it."""
    register(model, tmp_path)
    name = "models/m/versions/1/serving/m/config.pbtxt"
    new = store.get_bytes(name)[0]
    old = b"".join(line for line in new.splitlines(keepends=True) if not line.startswith(b"parameters"))
    assert len(old) < len(new)
    document = model.read_version(1)
    file = Fingerprint(sha256=hashlib.sha256(old).hexdigest(), bytes=len(old))
    before = document.model_copy(update={"files": document.files | {"serving/m/config.pbtxt": file}})
    store.put_bytes(before.to_json(), "models/m/versions/1/version.json")
    store.put_bytes(old, name)
    register(model, tmp_path)
    assert store.get_bytes(name)[0] == old and model.read_version(1) == before


@pytest.mark.parametrize("time", ["", "yesterday", "2026-01-01T00:00:00"])
def test_a_time_without_a_zone_is_refused(model: RegisteredModel, store: Store, time: str) -> None:
    model.reserve_version(digest(1), **FACTS)
    registry = model.read()
    registry.versions[0].created = time
    store.put_bytes(registry.to_json(), "models/m/register.json")
    with pytest.raises(CorruptDataError, match=r"no valid field 'versions\.0\.created'"):
        model.read()


def test_a_version_pruned_meanwhile_is_not_finalized(model: RegisteredModel) -> None:
    version = reserved(model, 1)
    model.prune(version)
    with pytest.raises(UserError, match="was pruned while it was registered; register it again"):
        model.finalize(version, lambda _: WINS)
    assert model.read().champion is None


def test_other_files_for_the_same_package_are_refused(model: RegisteredModel, store: Store, tmp_path: Path) -> None:
    register(model, tmp_path)
    before = store.get_bytes("models/m/versions/1/version.json")
    given = files(model, tmp_path)
    (tmp_path / "model.json").write_bytes(b"other")
    with pytest.raises(UserError, match=r"versions/1/version.json lists other files than those of the package"):
        model.versions.upload(model.entry(1), given, PACKAGE, provenance_of(), tmp_path)
    assert store.get_bytes("models/m/versions/1/version.json") == before


def test_concurrent_changes_are_all_recorded(model: RegisteredModel) -> None:
    complete(model, WINS, WINS, WINS)

    def change(number: int) -> None:
        model.promote(number % 3 + 1)
        model.reserve_version(digest(100 + number), **FACTS)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(change, range(16)))
    registry = model.read()
    assert [entry.version for entry in registry.versions] == list(range(1, 20))
    after = [decision.champion_after for decision in registry.decisions]
    assert [decision.champion_before for decision in registry.decisions] == [None, *after[:-1]]
    assert registry.champion == after[-1]


def test_what_was_judged_and_has_changed_is_not_done(model: RegisteredModel, store: Store) -> None:
    complete(model, WINS, WINS)
    judged = model.read()
    model.promote(1)
    for change in (partial(model.promote, 2, judged), partial(model.rollback, judged)):
        with pytest.raises(UserError, match="m has a new champion since this began: version 1; look at `models`"):
            change()
    assert model.promote(1, judged).champion == 1, "as wanted already"
    with pytest.raises(StillNeeded):
        model.prune(2, lambda registry: registry.champion == 2)
    assert [entry.state for entry in model.read().versions] == ["complete"] * 2
    assert model.promote(2, model.read()).champion == 2


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a document."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from paths(child, (*path, key))


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of a document with another value at `path`, or none if `value` is an ellipsis."""
    found = parent = copy.deepcopy(document)
    for key in path[:-1]:
        parent = parent[key]
    if value is Ellipsis:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return found


def _use_registry(model: RegisteredModel) -> None:
    for use in (model.read, lambda: model.promote(1), model.rollback):
        with suppress(UserError):  # a valid document may have no champion to go back to
            use()
    model.read()


@pytest.mark.parametrize(
    ("name", "read"),
    [("register.json", _use_registry), ("versions/1/version.json", lambda model: model.read_version(1))],
)
def test_a_damaged_document_is_reported_in_one_line(
    model: RegisteredModel, store: Store, tmp_path: Path, name: str, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(model, tmp_path)
    content = store.get_bytes(f"models/m/{name}")[0]
    document = json.loads(content)
    mutants = [json.dumps(changed(document, p, v)).encode() for p in paths(document) for v in (..., *STRANGE)]
    mutants += [b"", b"{", b"[]", b"\xff", b"[" * 10_000, b'{"format":' * 10_000, content[:-10], b"1" * 5000]
    served = b""

    def get_bytes(name_: str, limit: int) -> tuple[bytes, str]:
        return (served, "etag") if name_.endswith(name) else Store.get_bytes(store, name_, limit)

    monkeypatch.setattr(store, "get_bytes", get_bytes)  # there are a thousand, and the server is not under test
    monkeypatch.setattr(store, "put_bytes", lambda *_, **__: "etag")
    refused = 0
    for mutant in mutants:
        served = mutant
        try:
            read(model)
        except CorruptDataError as error:
            refused += 1
            assert re.match(re.escape(store.uri(f"models/m/{name}")), str(error)) and "\n" not in str(error)
    assert len(mutants) > 300 and refused > 0.8 * len(mutants)


def test_a_document_that_is_too_large_is_refused(model: RegisteredModel, store: Store, tmp_path: Path) -> None:
    register(model, tmp_path)
    store.put_bytes(b" " * (2**20 + 1), "models/m/versions/1/version.json")
    with pytest.raises(UserError, match=r"version.json has 1,048,577 bytes, and 1,048,576 are allowed"):
        model.read_version(1)


def test_a_version_whose_document_is_too_large_is_not_uploaded(
    model: RegisteredModel, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VersionDocument, "MAX_BYTES", 1000)
    too_large = "a document torch2kubeflow/version cannot be written (more than 1,000 bytes); use fewer classes, "
    with pytest.raises(UserError, match=re.escape(too_large)):
        register(model, tmp_path)
    assert [entry.name for entry in store.list("models/m/versions")] == []


def test_a_full_register_is_refused_before_it_is_written(
    model: RegisteredModel, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "models/m/register.json"
    complete(model, WINS)
    content = store.get_bytes(name)[0]
    monkeypatch.setattr(RegistryDocument, "MAX_BYTES", len(content) + 600 + DECISION_BYTES)
    assert reserved(model, 2) == 2
    content = store.get_bytes(name)[0]
    full = rf"{name} is full: it has 2 versions, and more than [0-9,]+ bytes could not be read; give another model_na"
    with pytest.raises(UserError, match=full):
        reserved(model, 3)
    assert store.get_bytes(name)[0] == content and reserved(model, 2) == 2
    model.versions.is_uploaded = lambda version: True  # type: ignore[method-assign]
    model.finalize(2, partial(judge, WINS))
    for _ in range(100):
        content = store.get_bytes(name)[0]
        try:
            model.promote(1)
            model.promote(2)
        except UserError as error:
            assert "a document torch2kubeflow/register cannot be written (more than " in str(error)
            break
    else:
        pytest.fail("it grows without limit")
    assert RegisteredModel(store, "m").read().champion is not None, "it can still be read"


def test_the_document_of_another_model_is_refused(model: RegisteredModel, store: Store) -> None:
    complete(model, WINS)
    store.put_bytes(store.get_bytes("models/m/register.json")[0], "models/n/register.json")
    with pytest.raises(CorruptDataError, match=r"models/n/register.json is of the model 'm'"):
        RegisteredModel(store, "n").read()
