"""The step register, against a real S3 server: pytest tests/steps/test_register.py"""

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.core.files import sha256_json
from components.shared.data.dataset import open_dataset
from components.shared.evaluation.document import EvaluationDocument
from components.shared.evaluation.exported_model import RefusalDocument
from components.shared.evaluation.inference import load_onnx
from components.shared.evaluation.memory_probe import Need
from components.shared.evaluation.parity import ParityError
from components.shared.registry.document import Figures
from components.shared.registry.registry import RegisteredModel
from components.shared.registry.versions import SAMPLES
from components.shared.storage.client import Store
from tests.dataset_writer import DatasetWriter
from tests.evaluation.page import assert_self_contained
from tests.servers.s3_server import BUCKET, KEY, SECRET, S3Server
from tests.small_packages import Artifacts, right, write_artifacts, write_dataset
from tests.trained_digits import CLASSES

IMAGES = 700
NAME = "light-dark"  # made from the name of the small data set, "Light & dark"
FIRST = right(IMAGES, range(600))

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("s3_variables")]

Capture = pytest.CaptureFixture[str]


class Killed(BaseException):
    """Stands for kill -9."""


@pytest.fixture
def model(store: Store) -> RegisteredModel:
    return RegisteredModel(store, NAME)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "dataset"
    write_dataset(folder, IMAGES)
    return folder


@pytest.fixture
def first(tmp_path: Path, dataset: Path) -> Artifacts:
    return write_artifacts(tmp_path / "first", dataset, FIRST)


def overwrite(server: S3Server, store: Store, name: str, content: bytes, **metadata: str) -> None:
    """Write an object, bypassing the code under test."""
    key = store.uri(name).removeprefix(f"s3://{BUCKET}/")
    server.client.put_object(BUCKET, key, BytesIO(content), len(content), metadata={**metadata})


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def test_the_first_version_is_the_champion(first: Artifacts, tmp_path: Path, uri: str, capsys: Capture) -> None:
    assert first.register(tmp_path / "out", uri) == {
        "format": "torch2kubeflow/registration",
        "name": NAME,
        "version": 1,
        "is_champion": True,
        "reason": "there was no champion before",
        "uri": f"{uri}/models/{NAME}/versions/1",
        "package_digest": first.digest,
        "figures": None,
    }
    line = f"[register] {NAME} version 1 is the champion: there was no champion before\n"
    assert capsys.readouterr().out.endswith(line)


def test_a_version_has_all_files_of_the_model(
    exported_digits: Artifacts, tmp_path: Path, store: Store, uri: str
) -> None:
    exported_digits.register(tmp_path / "out", uri, "digits")
    sources = {
        "model.safetensors": exported_digits.model,
        "model.json": exported_digits.model,
        "model.pt2": exported_digits.package,
        "package.json": exported_digits.package,
        "predictions.npy": exported_digits.package,
        "serving/digits/1/model.onnx": exported_digits.package,
        "drift.json": exported_digits.evaluation,
        "reference.npy": exported_digits.evaluation,
    }
    document = RegisteredModel(store, "digits").read_version(1)
    assert document.files.keys() == {*sources, "serving/digits/config.pbtxt", *SAMPLES}
    for path, folder in sources.items():
        store.get_file(f"models/digits/versions/1/{path}", tmp_path / path, document.files[path].sha256)
        assert (tmp_path / path).read_bytes() == (folder / Path(path).name).read_bytes()


def test_a_version_keeps_test_images_and_predictions(
    exported_digits: Artifacts, tmp_path: Path, store: Store, uri: str
) -> None:
    exported_digits.register(tmp_path / "out", uri, "digits")
    versions = RegisteredModel(store, "digits").versions
    kept = versions.read_samples(versions.read(1))
    assert kept
    images, predictions = kept
    assert images.shape == (20, 1, 32, 32) and images.dtype == np.uint8 and predictions.shape == (20, len(CLASSES))
    found = load_onnx(exported_digits.package / "model.onnx", 1)(np.array(images))
    assert np.allclose(found, predictions, atol=1e-4)


def test_no_test_image_is_kept_if_nobody_may_see_them(first: Artifacts, tmp_path: Path, store: Store, uri: str) -> None:
    first.register(tmp_path / "out", uri, keep_samples=False)
    versions = RegisteredModel(store, NAME).versions
    document = versions.read(1)
    assert not {*SAMPLES} & document.files.keys() and versions.read_samples(document) is None
    first.register(tmp_path / "again", uri)  # the version stays as it was
    assert versions.read(1) == document


def test_a_version_records_metrics_and_provenance(
    exported_digits: Artifacts, tmp_path: Path, store: Store, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUN_ID", "run-1")
    monkeypatch.setenv("STEP_IMAGE", "registry/image@sha256:1")
    monkeypatch.setenv("REVISION", "abc")
    exported_digits.register(tmp_path / "out", uri, "digits", min_accuracy=0.5)
    document = RegisteredModel(store, "digits").read_version(1)
    evaluated = EvaluationDocument.read(exported_digits.evaluation / "evaluation.json")
    assert document.metrics["accuracy"] == evaluated.accuracy > 0.5
    assert document.classes == CLASSES
    origin = document.provenance
    assert origin.data.source == "scikit-learn" and origin.data.parameters == {"image_size": 32}
    assert (origin.revision, origin.image, origin.run_id) == ("abc", "registry/image@sha256:1", "run-1")
    assert (origin.registration["min_accuracy"], origin.registration["significance"]) == (0.5, 0.05)
    assert not {"store", "model_name", "threads"} & origin.registration.keys()


def test_the_triton_config_matches_the_onnx_model(
    exported_digits: Artifacts, tmp_path: Path, store: Store, uri: str
) -> None:
    exported_digits.register(tmp_path / "out", uri, "digits")
    config = store.get_bytes("models/digits/versions/1/serving/digits/config.pbtxt")[0].decode()
    assert 'name: "digits"' in config and "max_batch_size: " in config
    assert 'name: "images" data_type: TYPE_UINT8 dims: [1, 32, 32]' in config
    assert 'name: "probabilities" data_type: TYPE_FP32 dims: [10]' in config
    digest = RegisteredModel(store, "digits").read_version(1).package_digest
    assert f'parameters {{ key: "package_digest" value: {{ string_value: "{digest}" }} }}' in config
    store.get_file("models/digits/versions/1/serving/digits/1/model.onnx", tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (images,), (probabilities,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.shape[1:]) == ("images", [1, 32, 32])
    assert (probabilities.name, probabilities.shape[1:]) == ("probabilities", [10])


@pytest.mark.parametrize(
    ("places", "significance", "n01", "n10", "wins", "line"),
    [
        ([range(620)], 0.05, 20, 0, True, r"is the champion: 88.57% against 85.71% of version 1, p = 1.9e-06$"),
        ([range(10, 630)], 0.05, 30, 10, True, r"is the champion: 88.57% against 85.71% of version 1, p = 0.0022$"),
        ([range(10, 630)], 0.001, 30, 10, False, r"which may be chance \(significance 0.001\)$"),
        ([range(5, 610)], 0.05, 10, 5, False, r"version 1 is the champion: .*, p = 0.3, which may be chance"),
        ([range(500)], 0.05, 0, 100, False, r"version 1 is the champion: .*, which is not better$"),
        ([range(10, 610)], 0.05, 10, 10, False, r"85.71% against 85.71% of version 1, which is not better$"),
    ],
)
def test_the_challenger_must_be_better_by_more_than_chance(
    first: Artifacts,
    dataset: Path,
    tmp_path: Path,
    uri: str,
    model: RegisteredModel,
    places: list[range],
    significance: float,
    n01: int,
    n10: int,
    wins: bool,
    line: str,
    capsys: Capture,
) -> None:
    first.register(tmp_path / "out1", uri)
    second = write_artifacts(tmp_path / "second", dataset, right(IMAGES, *places))
    found = second.register(tmp_path / "out2", uri, significance=significance)
    assert (found["version"], found["is_champion"]) == (2, wins)
    assert (found["figures"]["n01"], found["figures"]["n10"], found["figures"]["images"]) == (n01, n10, IMAGES)
    assert found["figures"]["champion_accuracy"] == 600 / IMAGES
    assert found["figures"]["rescored"] is False and found["figures"]["decided_before"] == 0
    assert re.search(line, capsys.readouterr().out.strip())
    registry = model.read()
    assert registry.champion == (2 if wins else 1)
    assert registry.decisions[-1].figures == Figures(**found["figures"])
    page = assert_self_contained((tmp_path / "out2/promotion.html").read_text())
    assert "This test split has decided between two versions 0 times before" in page.text
    assert found["reason"] in page.text and found["package_digest"] in page.text


def test_the_decisions_of_a_test_split_are_counted(first: Artifacts, dataset: Path, tmp_path: Path, uri: str) -> None:
    first.register(tmp_path / "out0", uri)
    for number in range(1, 4):
        made = write_artifacts(tmp_path / f"next{number}", dataset, right(IMAGES, range(600 - number)))
        assert made.register(tmp_path / f"out{number}", uri)["figures"]["decided_before"] == number - 1
    page = assert_self_contained((tmp_path / "out3/promotion.html").read_text())
    assert "This test split has decided between two versions 2 times before" in page.text


def test_a_champion_of_another_test_split_is_scored_on_this_one(
    exported_digits: Artifacts, tmp_path: Path, uri: str, store: Store, server: S3Server
) -> None:
    exported_digits.register(tmp_path / "out1", uri, "digits")
    images, labels = open_dataset(exported_digits.dataset).load("val")
    other = write_split(tmp_path / "other", images, labels)
    classify = onnxruntime.InferenceSession(exported_digits.package / "model.onnx")
    expected = classify.run(None, {"images": images})[0].argmax(axis=1) == labels
    assert 0 < expected.sum() < len(labels)
    challenger = write_artifacts(tmp_path / "challenger", other, np.ones(len(labels), bool))
    found = challenger.register(tmp_path / "out2", uri, "digits")
    assert found["figures"]["rescored"] is True
    assert found["figures"]["champion_accuracy"] == expected.mean()
    assert (found["figures"]["n01"], found["figures"]["n10"]) == ((~expected).sum(), 0)
    assert found["is_champion"] == (found["figures"]["p_value"] < 0.05)
    page = assert_self_contained((tmp_path / "out2/promotion.html").read_text())
    assert "version 1, scored on this split" in page.text


def test_a_champion_that_needs_too_much_memory_stays(
    exported_digits: Artifacts, tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported_digits.register(tmp_path / "out1", uri, "digits")
    other = write_split(tmp_path / "other", *open_dataset(exported_digits.dataset).load("val"))
    monkeypatch.setattr("components.shared.registry.challenger.measure_need", lambda *_: Need(2**50, 0))
    challenger = write_artifacts(tmp_path / "challenger", other, np.ones(open_dataset(other).counts["test"], bool))
    found = challenger.register(tmp_path / "out2", uri, "digits")
    assert (found["version"], found["is_champion"], found["figures"]) == (2, False, None)
    assert "version 1 cannot be scored on the new test split: it needs about 1048576.0 GiB to" in found["reason"]


def write_split(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    """Write a dataset with the classes of the digits and these test images."""
    folder.mkdir()
    counts = {"train": 0, "val": 0, "test": len(labels)}
    writer = DatasetWriter(folder, classes=CLASSES, image_shape=(1, 32, 32), counts=counts)
    writer.append("test", images, labels)
    writer.finish(name="others", source="made", raw_digest="1" * 64, parameters={}, seconds={})
    return folder


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"classes": ["dark", "light"]}, "version 1 has other classes"),
        ({"side": 5}, r"version 1 reads images of shape \[1, 4, 4\], not \[1, 5, 5\]"),
    ],
)
def test_a_model_that_cannot_be_compared_can_be_promoted_by_hand(
    first: Artifacts, tmp_path: Path, uri: str, model: RegisteredModel, change: dict[str, Any], reason: str
) -> None:
    first.register(tmp_path / "out1", uri)
    other = write_dataset(tmp_path / "other", IMAGES, **change)
    found = write_artifacts(tmp_path / "second", other, right(IMAGES, range(IMAGES))).register(tmp_path / "out2", uri)
    assert (found["version"], found["is_champion"], found["figures"]) == (2, False, None)
    assert re.search(f"{reason}; .*python pipeline.py models promote {NAME} 2$", found["reason"])
    assert model.promote(2).champion == 2


def test_a_champion_that_cannot_be_scored_stays(
    first: Artifacts, tmp_path: Path, uri: str, model: RegisteredModel
) -> None:
    first.register(tmp_path / "out1", uri)
    other = write_artifacts(tmp_path / "second", write_dataset(tmp_path / "other", IMAGES, seed=1), FIRST)
    found = other.register(tmp_path / "out2", uri)
    assert not found["is_champion"] and "version 1 cannot be scored on the new test split" in found["reason"]


def test_a_package_registered_again_changes_nothing(
    first: Artifacts, dataset: Path, tmp_path: Path, uri: str, model: RegisteredModel, store: Store
) -> None:
    second = write_artifacts(tmp_path / "second", dataset, right(IMAGES, range(650)))
    outcomes = [made.register(tmp_path / "out", uri) for made in (first, second)]
    before, objects = model.read(), {entry.name: entry.etag for entry in store.list()}
    assert second.register(tmp_path / "out", uri) == outcomes[1]
    later = {"is_champion": False, "reason": "version 2 is since then: it was better"}
    assert first.register(tmp_path / "out", uri) == {**outcomes[0], **later}
    assert model.read() == before
    assert {entry.name: entry.etag for entry in store.list()} == objects


def test_a_package_registered_again_undoes_no_rollback(
    first: Artifacts, dataset: Path, tmp_path: Path, uri: str, model: RegisteredModel, capsys: Capture
) -> None:
    second = write_artifacts(tmp_path / "second", dataset, right(IMAGES, range(650)))
    for made in (first, second):
        made.register(tmp_path / "out", uri)
    model.rollback()
    assert second.register(tmp_path / "out", uri)["is_champion"] is False
    assert model.read().champion == 1
    assert "version 2 was the champion before, and version 1 is now" in capsys.readouterr().out
    page = assert_self_contained((tmp_path / "out/promotion.html").read_text())
    assert "Not the champion" in page.text
    third = write_artifacts(tmp_path / "third", dataset, right(IMAGES, range(640)))
    assert third.register(tmp_path / "out", uri)["is_champion"], "it is better than the champion, not than version 2"


def test_a_package_registered_again_tells_who_is_champion(
    first: Artifacts, dataset: Path, tmp_path: Path, uri: str, model: RegisteredModel
) -> None:
    second = write_artifacts(tmp_path / "second", dataset, right(IMAGES, range(500)))
    for made in (first, second):
        made.register(tmp_path / "out", uri)
    model.promote(2)
    found = [made.register(tmp_path / "out", uri) for made in (first, second)]
    assert [one["is_champion"] for one in found] == [False, True]
    how = "it was promoted by hand"
    assert [one["reason"] for one in found] == [f"version 2 is since then: {how}", how]
    assert len(model.read().decisions) == 3, "two registrations and a promotion"


def test_a_package_whose_store_was_lost_is_a_version_again(
    first: Artifacts, tmp_path: Path, uri: str, store: Store, model: RegisteredModel
) -> None:
    before = first.register(tmp_path / "out", uri)
    store.remove(*(entry.name for entry in store.list()))
    assert first.register(tmp_path / "out", uri) == before
    assert model.read().champion == 1 and model.read_version(1).package_digest == first.digest


def test_a_pruned_version_is_restored_and_not_judged_again(
    first: Artifacts, dataset: Path, tmp_path: Path, uri: str, model: RegisteredModel
) -> None:
    second = write_artifacts(tmp_path / "second", dataset, right(IMAGES, range(650)))
    for made in (first, second):
        made.register(tmp_path / "out", uri)
    model.prune(1)
    decisions = model.read().decisions
    assert first.register(tmp_path / "out", uri)["version"] == 1
    registry = model.read()
    assert (registry.champion, registry.decisions) == (2, decisions)
    assert [version.state for version in registry.versions] == ["complete", "complete"]
    assert model.read_version(1).package_digest == first.digest


def test_killed_at_any_write_it_resumes_the_same_version(
    first: Artifacts, dataset: Path, tmp_path: Path, uri: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = write_artifacts(tmp_path / "second", dataset, right(IMAGES, range(650)))
    writes = 0

    def dying(name: str, at: int) -> None:
        nonlocal writes
        put = getattr(Store, name)

        def write(self: Store, *arguments: Any, **options: Any) -> Any:
            nonlocal writes
            writes += 1
            if writes == at:
                raise Killed
            return put(self, *arguments, **options)

        monkeypatch.setattr(Store, name, write)

    at = 0
    while True:
        at, writes, name = at + 1, 0, f"killed-{at}"
        with monkeypatch.context() as monkeypatch:
            dying("put_file", at)
            dying("put_bytes", at)
            try:
                first.register(tmp_path / "out", uri, name)
                break
            except Killed:
                assert not (tmp_path / "out/registration").exists()
        assert first.register(tmp_path / "out", uri, name)["version"] == 1
        assert second.register(tmp_path / "out", uri, name)["version"] == 2
        registry = RegisteredModel(store, name).read()
        assert [version.state for version in registry.versions] == ["complete", "complete"]
        assert registry.champion == 2
        for number, made in ((1, first), (2, second)):
            assert RegisteredModel(store, name).read_version(number).package_digest == made.digest
    assert at == 13, "12 writes: the reservation, nine files, the document, the decision"


@pytest.mark.parametrize("count", [2, 100])
def test_of_concurrent_registrations_the_best_is_the_champion(
    dataset: Path, tmp_path: Path, uri: str, model: RegisteredModel, count: int
) -> None:
    levels = np.random.default_rng(0).permutation(np.arange(1, count + 1) * 7)
    made = [
        write_artifacts(tmp_path / f"{level}", dataset, right(IMAGES, range(level)), seed=int(level))
        for level in levels
    ]
    with ThreadPoolExecutor(count) as pool:
        outcomes = list(pool.map(lambda m: m.register(m.model.parent / "out", uri), made))
    registry = model.read()
    assert sorted(outcome["version"] for outcome in outcomes) == list(range(1, count + 1))
    for outcome, artifacts in zip(outcomes, made, strict=True):
        entry = registry.versions[outcome["version"] - 1]
        assert (entry.package_digest, entry.state) == (artifacts.digest, "complete")
        assert model.read_version(outcome["version"]).package_digest == artifacts.digest
    assert len(registry.decisions) == count
    assert registry.champion == outcomes[int(levels.argmax())]["version"]
    champions = [decision.champion_after for decision in registry.decisions]
    assert [decision.champion_before for decision in registry.decisions] == [None, *champions[:-1]]


@pytest.mark.parametrize("with_digest", [False, True])
@pytest.mark.parametrize("path", ["predictions.npy", "version.json"])
def test_a_damaged_file_of_the_champion_is_reported_not_used(
    first: Artifacts,
    dataset: Path,
    tmp_path: Path,
    uri: str,
    store: Store,
    server: S3Server,
    model: RegisteredModel,
    path: str,
    with_digest: bool,
) -> None:
    first.register(tmp_path / "out1", uri)
    name = f"models/{NAME}/versions/1/{path}"
    content, _ = store.get_bytes(name)
    key = store.uri(name).removeprefix(f"s3://{BUCKET}/")
    metadata = server.client.stat_object(BUCKET, key).metadata
    assert metadata
    sha256 = metadata["x-amz-meta-sha256"]
    damaged = flipped(content) if path == "predictions.npy" else content.replace(b'"name"', b'"mame"', 1)
    overwrite(server, store, name, damaged, **({"sha256": sha256} if with_digest else {}))
    second = write_artifacts(tmp_path / "second", dataset, right(IMAGES, range(650)))
    found = second.register(tmp_path / "out2", uri)
    assert (found["is_champion"], found["figures"]) == (False, None)
    assert store.uri(name) in found["reason"] and "models promote" in found["reason"]
    first.register(tmp_path / "out1", uri)
    repaired, _ = store.get_bytes(name)
    if path == "version.json":
        repaired, content = without_times(repaired), without_times(content)
    assert repaired == content, "registering its package repairs it"


def without_times(content: bytes) -> bytes:
    return re.sub(rb'"(time|created)": "[^"]*"', b"", content)


def test_a_damaged_program_of_the_champion_is_never_run(
    exported_digits: Artifacts, tmp_path: Path, uri: str, store: Store, server: S3Server
) -> None:
    exported_digits.register(tmp_path / "out1", uri, "digits")
    name = "models/digits/versions/1/serving/digits/1/model.onnx"
    overwrite(server, store, name, flipped((exported_digits.package / "model.onnx").read_bytes()))
    other = write_split(tmp_path / "other", *open_dataset(exported_digits.dataset).load("val"))
    challenger = write_artifacts(tmp_path / "challenger", other, np.ones(50, bool))
    found = challenger.register(tmp_path / "out2", uri, "digits")
    assert not found["is_champion"] and store.uri(name) in found["reason"]


def test_a_damaged_registry_document_is_reported(first: Artifacts, tmp_path: Path, uri: str, store: Store) -> None:
    first.register(tmp_path / "out1", uri)
    name = f"models/{NAME}/register.json"
    store.put_bytes(store.get_bytes(name)[0].replace(b'"champion": 1', b'"champion": 7'), name)
    with pytest.raises(UserError, match=rf"{store.uri(name)} has no valid field 'champion'"):
        first.register(tmp_path / "out2", uri)
    assert not (tmp_path / "out2/registration").exists()


def test_without_a_store_nothing_is_registered(first: Artifacts, tmp_path: Path, capsys: Capture) -> None:
    found = first.register(tmp_path / "out")
    assert found["name"] == NAME and found["package_digest"] == first.digest
    assert (found["version"], found["is_champion"], found["uri"], found["figures"]) == (None, False, None, None)
    page = assert_self_contained((tmp_path / "out/promotion.html").read_text())
    for text in (found["reason"], page.text, capsys.readouterr().out):
        assert "nothing is stored: the parameter store is empty; give store=s3://bucket/prefix" in text


def test_no_output_contains_the_keys(
    first: Artifacts, tmp_path: Path, uri: str, store: Store, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    first.register(tmp_path / "out", uri)
    outputs = [capsys.readouterr().out.encode()]
    outputs += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    outputs += [store.get_bytes(entry.name)[0] for entry in store.list()]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{SECRET}-wrong")
    with pytest.raises(UserError, match="the secret key does not belong to the access key") as refused:
        first.register(tmp_path / "out", uri)
    outputs.append(str(refused.value).encode())
    assert not [text for text in outputs if SECRET.encode() in text or KEY.encode() in text]


@pytest.mark.parametrize(
    ("folder", "file"), [("model", "model.json"), ("evaluation", "evaluation.json"), ("package", "package.json")]
)
def test_artifacts_that_do_not_belong_together_are_refused(
    first: Artifacts, dataset: Path, tmp_path: Path, folder: str, file: str
) -> None:
    other = write_artifacts(tmp_path / "other", dataset, right(IMAGES, range(10)), seed=1)
    shutil.copy(getattr(other, folder) / file, getattr(first, folder) / file)
    with pytest.raises(UserError, match="was exported from the model digest"):
        first.register(tmp_path / "out")


@pytest.mark.parametrize(
    ("folder", "file", "field"),
    [
        ("package", "package.json", "predictions_sha256"),
        ("package", "package.json", "test_accuracy"),
        ("evaluation", "evaluation.json", "model_digest"),
        ("model", "model.json", "device"),
    ],
)
def test_a_document_without_a_field_is_refused(
    first: Artifacts, tmp_path: Path, folder: str, file: str, field: str
) -> None:
    path = getattr(first, folder) / file
    seal = {"package.json": "digest", "model.json": "checksum"}.get(file, "")
    document = {name: value for name, value in json.loads(path.read_bytes()).items() if name not in (field, seal)}
    path.write_text(json.dumps({**document, seal: sha256_json(document)}))
    with pytest.raises(UserError, match=f"{file} has no valid field '{field}'"):
        first.register(tmp_path / "out")


def test_files_that_do_not_match_the_package_are_refused(
    first: Artifacts, tmp_path: Path, uri: str, model: RegisteredModel
) -> None:
    for folder in (first.evaluation, first.package):
        np.save(folder / "predictions.npy", np.zeros((IMAGES, 2), np.float32))
    with pytest.raises(UserError, match=r"predictions.npy is damaged"):
        first.register(tmp_path / "out", uri)
    assert model.read().champion is None


def test_exported_predictions_must_be_those_evaluated(first: Artifacts, tmp_path: Path, uri: str, store: Store) -> None:
    np.save(first.evaluation / "predictions.npy", np.roll(np.load(first.package / "predictions.npy"), 1, axis=1))
    with pytest.raises(ParityError, match=r"the evaluation and the exported predictions differ in the class of 700"):
        first.register(tmp_path / "out", uri)
    assert not list(store.list())


def refuse(made: Artifacts, *reasons: str) -> None:
    """Let the evaluation refuse the model."""
    path = made.evaluation / "evaluation.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "accepted": False, "reasons": reasons}))


def test_a_model_that_was_not_accepted_is_not_registered(
    first: Artifacts, tmp_path: Path, uri: str, store: Store, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "event", lambda kind, **_: print(kind))
    refuse(first, "accuracy 0.5 is below min_accuracy=0.98")
    shutil.rmtree(first.package)
    first.register(tmp_path / "out", uri, has_page=False)
    document = json.loads((tmp_path / "out/registration/registration.json").read_bytes())
    reason = "not accepted, not registered: accuracy 0.5 is below min_accuracy=0.98"
    assert (document["name"], document["version"], document["reason"]) == (NAME, None, reason)
    assert (document["is_champion"], document["package_digest"]) == (False, None)
    out = capsys.readouterr().out
    assert out.splitlines() == ["verdict", f"[register] {reason}"]
    assert not list(store.list())


def test_two_verdicts_on_one_model_are_one_line(first: Artifacts, tmp_path: Path, uri: str) -> None:
    refusal = RefusalDocument(reasons=["accuracy 0.97 is below min_accuracy=0.98"], model_digest="0" * 64)
    refusal.write(first.package / "refused.json")
    with pytest.raises(UserError, match=r"^step evaluate accepted the model and step export did not: accuracy 0.97"):
        first.register(tmp_path / "out", uri)


def test_a_data_set_without_letters_needs_a_model_name(tmp_path: Path, first: Artifacts) -> None:
    moved = replace(first, dataset=changed(first.dataset, tmp_path / "dataset", name="猫"))
    with pytest.raises(UserError, match="give model_name"):
        moved.register(tmp_path / "out")
    assert moved.register(tmp_path / "out", name="cats")["name"] == "cats"


def test_a_dataset_of_unknown_origin_is_refused(tmp_path: Path, first: Artifacts, uri: str, store: Store) -> None:
    moved = replace(first, dataset=changed(first.dataset, tmp_path / "dataset", source=None))
    with pytest.raises(UserError, match=r"dataset\.json does not say what it was prepared from"):
        moved.register(tmp_path / "out", uri)
    assert not list(store.list())


def changed(dataset: Path, folder: Path, **fields: Any) -> Path:
    """Copy a dataset to `folder`, with some fields of its document changed."""
    shutil.copytree(dataset, folder)
    open_dataset(folder).document.model_copy(update=fields).sealed().write(folder / "dataset.json")
    return folder
