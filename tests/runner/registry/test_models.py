"""The verbs models, verify and lineage, against a real S3 server: pytest tests/runner/registry/test_models.py"""

import json
import re
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest

from components.shared.core.document import Fingerprint
from components.shared.core.errors import UserError
from components.shared.core.files import sha256_json
from components.shared.parameters.training import Settings
from components.shared.registry.registry import RegisteredModel, StillNeeded
from components.shared.storage.client import Store
from runner.registry import models, verify
from runner.registry.retention import Retention
from runner.verbs.parser import parse
from tests.servers.s3_server import BUCKET, S3Server
from tests.small_packages import right, write_artifacts, write_dataset

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("s3_variables")]

IMAGES = 700
NAME = "digits"
CONFIG = "data/weights/model_weights_config.json"
Verb = Callable[..., tuple[int, str]]


@pytest.fixture
def model(store: Store, tmp_path: Path) -> RegisteredModel:
    """A model with three versions, each clearly better than the one before."""
    dataset = write_dataset(tmp_path / "dataset", IMAGES)
    for seed, good in enumerate((500, 600, 690)):
        made = write_artifacts(tmp_path / str(seed), dataset, right(IMAGES, range(good)), seed)
        (tmp_path / f"registered-{seed}").mkdir()
        assert made.register(tmp_path / f"registered-{seed}", store.uri(), NAME)["is_champion"]
    return RegisteredModel(store, NAME)


@pytest.fixture
def verb(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Verb:
    """A function that runs a verb on the store and returns exit code and output."""

    def call(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        options = [] if any(word.startswith("s3://") for word in words) else ["--store", store.uri()]
        arguments = parse([*words, *options])
        return int(resolve_name(f"{arguments.module}:handle")(arguments)), capsys.readouterr().out

    return call


SETTINGS = {name: value for name, value in Settings.of().values().items() if name != "shuffle_window"}


def test_versions_are_listed_with_the_champion(verb: Verb, model: RegisteredModel) -> None:
    code, shown = verb("models")
    assert code == 0
    rows = [line.split()[:4] for line in shown.splitlines()[1:]]
    assert rows == [
        [NAME, "1", "complete", "71.43%"],
        [NAME, "2", "complete", "85.71%"],
        [NAME, "3", "champion", "98.57%"],
    ]
    assert verb("models", "list") == (0, shown)


def test_an_empty_store_shows_how_to_register_a_model(verb: Verb) -> None:
    assert "no models yet" in verb("models")[1]
    with pytest.raises(UserError, match="no models yet"):
        verb("models", "rollback", NAME)


def test_promotion_and_rollback(verb: Verb, model: RegisteredModel) -> None:
    assert "version 2 is the champion now, replacing version 3" in verb("models", "rollback", NAME)[1]
    assert "version 1 is the champion now, replacing version 2" in verb("models", "rollback", NAME)[1]
    with pytest.raises(UserError, match="no champion to go back to"):
        verb("models", "rollback", NAME)
    assert "version 3 is the champion now, replacing version 1" in verb("models", "promote", NAME, "3")[1]
    assert "already" in verb("models", "promote", NAME, "3")[1]
    with pytest.raises(UserError, match="no version 4; it has versions 1 to 3"):
        verb("models", "promote", NAME, "4")
    with pytest.raises(UserError, match=f"no model other; it has {NAME}"):
        verb("models", "promote", "other", "1")


def test_diff_shows_what_differs_between_two_versions(verb: Verb, model: RegisteredModel) -> None:
    _, shown = verb("models", "diff", NAME, "1", "3")
    (line,) = [line for line in shown.splitlines() if line.startswith("metrics.accuracy")]
    assert line.split() == ["metrics.accuracy", "0.714286", "0.985714"]
    assert "dataset_digest" not in shown, "both were trained on the same data"


def test_pruning_keeps_newest_champion_and_previous_champion(verb: Verb, model: RegisteredModel) -> None:
    everything = {entry.name for entry in model.store.list()}
    _, shown = verb("models", "prune", "--keep", "1", "--dry-run")
    assert shown.splitlines() == [f"would remove {NAME} version 1"]
    assert {entry.name for entry in model.store.list()} == everything
    _, shown = verb("models", "prune", "--keep", "1")
    assert shown.splitlines() == [f"removed {NAME} version 1"]
    gone = everything - {entry.name for entry in model.store.list()}
    assert gone and all(name.startswith(f"models/{NAME}/versions/1/") for name in gone)
    assert [entry.state for entry in model.read().versions] == ["pruned", "complete", "complete"]
    verb("models", "rollback", NAME)
    assert model.read().champion == 2
    with pytest.raises(UserError, match="pruned"):
        verb("models", "promote", NAME, "1")


def test_leftovers_of_interrupted_runs_are_removed_once_old(store: Store, model: RegisteredModel) -> None:
    needed = {entry.name for entry in store.list()}
    facts: dict[str, Any] = {
        "accuracy": 0.5,
        "images": 1,
        "test_split_digest": "1" * 64,
        "model_digest": "2" * 64,
        "run_id": "",
    }
    model.reserve_version("3" * 64, **facts)
    store.put_bytes(b"half of it", f"models/{NAME}/versions/4/model.pt2")
    store.put_bytes(b"a checkpoint", f"checkpoints/{'4' * 64}/0000000100.safetensors")
    store.put_bytes(b"a job that was lost", "jobs/train-1/job.json")
    store.put_bytes(b"a rung", f"sweeps/{'8' * 64}/1/2.json")
    store.put_bytes(b"a shard", f"datasets/shards/{'5' * 64}.npy")
    store.put_bytes(b"no document", f"datasets/{'6' * 64}/dataset.json")
    assert not list(models.prune(store, days=1, keep=None, is_dry=False))
    lines = list(models.prune(store, days=0, keep=None, is_dry=False))
    assert len(lines) == 6 and any("1 rungs of the sweep 888888888888" in line for line in lines)
    assert {entry.name for entry in store.list()} == needed
    assert model.read().versions[3].state == "pruned"
    assert model.reserve_version("7" * 64, **facts).version == 5, "a number is never used twice"


def test_a_dry_run_lists_all_that_pruning_removes(verb: Verb, store: Store, tmp_path: Path) -> None:
    for number, good in enumerate((500, 600, 690)):
        dataset = write_dataset(tmp_path / f"dataset-{number}", IMAGES, seed=number)
        made = write_artifacts(tmp_path / str(number), dataset, right(IMAGES, range(good)), number)
        made.register(tmp_path / f"out-{number}", store.uri(), NAME)
        store_prepared(store, dataset, str(number) * 64)
    words = ("models", "prune", "--keep", "1", "--older-than", "0")
    dry = verb(*words, "--dry-run")[1].splitlines()
    assert f"would remove the prepared data {'1' * 12}" in dry
    assert [line.replace("removed", "would remove") for line in verb(*words)[1].splitlines()] == dry


def store_prepared(store: Store, dataset: Path, recipe: str) -> None:
    """Store a dataset as the step preprocess does."""
    content = (dataset / "dataset.json").read_bytes()
    document = json.loads(content)
    samples = {"samples_sha256": "0" * 64}
    body = {name: value for name, value in {**document, **samples}.items() if name != "checksum"}
    content = json.dumps({**body, "checksum": sha256_json(body)}).encode()
    store.put_bytes(content, f"datasets/{recipe}/dataset.json")


def test_leftovers_of_a_pruned_version_are_removed(store: Store, model: RegisteredModel) -> None:
    model.prune(1)
    needed = {entry.name for entry in store.list()}
    late = f"models/{NAME}/versions/1/model.pt2"
    store.put_bytes(b"sent late", late)
    assert not list(models.prune(store, days=1, keep=None, is_dry=False))
    lines = list(models.prune(store, days=0, keep=None, is_dry=False))
    assert lines == [f"removed 1 files uploaded for {NAME} version 1 after it was removed"]
    assert {entry.name for entry in store.list()} == needed
    registry = model.read()
    registry.versions[0].state = "pruning"
    store.put_bytes(registry.to_json(), f"models/{NAME}/register.json")
    store.put_bytes(b"not removed", late)
    lines = list(models.prune(store, days=1, keep=None, is_dry=False))
    assert lines == [f"removed {NAME} version 1, whose removal was interrupted"]
    assert {entry.name for entry in store.list()} == needed
    assert model.read().versions[0].state == "pruned"


def test_a_version_completed_while_pruning_stays(store: Store, model: RegisteredModel) -> None:
    registry = model.read()
    registry.versions[0].state = "claimed"
    store.put_bytes(registry.to_json(), f"models/{NAME}/register.json")
    lines, finalize = Retention(store, 0).unneeded(None), partial(model.finalize, 1, lambda _: pytest.fail("judged"))
    found = next(lines)
    assert found.description == f"{NAME} version 1, whose registration was never completed"
    finalize()
    with pytest.raises(StillNeeded):
        found.remove()
    assert model.read_version(1) and model.read().versions[0].state == "complete"


def test_prune_says_what_it_kept(
    store: Store, model: RegisteredModel, verb: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    prune = RegisteredModel.prune

    def promote_first(model: RegisteredModel, version: int, *rule: Any) -> None:
        model.promote(version)
        prune(model, version, *rule)

    monkeypatch.setattr(RegisteredModel, "prune", promote_first)
    assert verb("models", "prune", "--keep", "1")[1].splitlines() == [
        f"kept {NAME} version 1: it has changed meanwhile"
    ]


def test_no_data_is_removed_if_its_use_is_unknown(store: Store, model: RegisteredModel) -> None:
    store.put_bytes(b"{}", f"models/{NAME}/versions/2/version.json")
    store.put_bytes(b"a shard", f"datasets/shards/{'5' * 64}.npy")
    before = {entry.name for entry in store.list()}
    (line,) = models.prune(store, days=0, keep=None, is_dry=False)
    assert re.match(r"no prepared data is removed, .*versions/2/version.json", line)
    assert {entry.name for entry in store.list()} == before


def test_an_intact_version_is_verified(verb: Verb, model: RegisteredModel) -> None:
    code, shown = verb("verify", f"{model.uri(3)}/")
    assert code == 0
    assert shown.count("sha256=") == len(model.read_version(3).files)
    assert shown.splitlines()[-1] == f"{model.uri(3)}: intact"
    assert verb("verify", f"{NAME}/3")[0] == 0


@pytest.mark.parametrize("file", ["model.safetensors", "serving/digits/1/model.onnx", "predictions.npy"])
def test_a_flipped_bit_is_found_and_named(server: S3Server, verb: Verb, model: RegisteredModel, file: str) -> None:
    name = f"{model.uri(3)}/{file}".removeprefix(f"s3://{BUCKET}/")
    content = bytearray(server.client.get_object(BUCKET, name).read())
    content[len(content) // 2] ^= 1
    server.client.put_object(BUCKET, name, BytesIO(content), len(content))
    code, shown = verb("verify", f"{NAME}/3")
    assert code == 1
    assert f"versions/3/{file} is damaged" in shown
    assert "intact" not in shown


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("serving/digits/1/model.onnx", "the package's ONNX program is"),
        ("model.pt2", "the package's torch.export program is"),
        ("predictions.npy", "the package's predictions.npy is"),
    ],
)
def test_a_file_of_another_package_is_found(
    verb: Verb, model: RegisteredModel, tmp_path: Path, file: str, message: str
) -> None:
    (tmp_path / "other").write_bytes(b"of another package")
    digest = model.store.put_file(tmp_path / "other", f"models/{NAME}/versions/3/{file}")
    document = model.read_version(3)
    document.files[file] = Fingerprint(sha256=digest, bytes=18)
    model.store.put_bytes(document.to_json(), f"models/{NAME}/versions/3/version.json")
    code, shown = verb("verify", f"{NAME}/3")
    assert code == 1 and f"{message} " in shown and "intact" not in shown


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({"data/sample_inputs/model.pt": b"pickled"}, "data/sample_inputs/model.pt"),
        ({"data/constants/custom_obj_0": b"pickled"}, "data/constants/custom_obj_0"),
        ({CONFIG: json.dumps({"config": {"x": {"path_name": "weight_0", "use_pickle": True}}}).encode()}, CONFIG),
        ({CONFIG: b"[" * 10_000}, CONFIG),
    ],
)
def test_a_package_that_would_unpickle_is_refused(
    verb: Verb, store: Store, tmp_path: Path, members: dict[str, bytes], named: str
) -> None:
    made = write_artifacts(tmp_path / "a", write_dataset(tmp_path / "data", 20), right(20, range(15)), members=members)
    made.register(tmp_path / "out", store.uri(), NAME)
    code, shown = verb("verify", f"{NAME}/1")
    line = f"versions/1/model.pt2 holds pickles, which can run code when it is loaded: {named}; run the pipeline again"
    assert code == 1 and line in shown and "intact" not in shown


def test_an_entry_of_another_package_is_found(verb: Verb, model: RegisteredModel) -> None:
    registry = model.read()
    registry.versions[2].package_digest = "0" * 64
    model.store.put_bytes(registry.to_json(), f"models/{NAME}/register.json")
    code, shown = verb("verify", f"{NAME}/3")
    assert code == 1 and f"the registry's digest of the package is {'0' * 64}" in shown


def test_a_version_with_other_parameters_is_not_retrained(verb: Verb, model: RegisteredModel) -> None:
    with pytest.raises(
        UserError, match=r"version 3 was trained by code with other parameters \(accumulate, activation"
    ):
        verb("verify", f"{NAME}/3", "--retrain")


def _change_provenance(model: RegisteredModel, **changes: Any) -> None:
    document = model.read_version(3)
    provenance = document.provenance.model_copy(update=changes)
    content = document.model_copy(update={"provenance": provenance}).to_json()
    model.store.put_bytes(content, f"models/{NAME}/versions/3/version.json")


def test_data_of_a_signed_address_is_not_downloaded_again(verb: Verb, model: RegisteredModel) -> None:
    data = model.read_version(3).provenance.data
    told = data.model_copy(update={"source": "https://example.org/pets.zip?..."})
    _change_provenance(model, parameters=SETTINGS, data=told)
    with pytest.raises(
        UserError, match=r"from https://example.org/pets.zip\?\.\.\., of which the query is stored nowhere"
    ):
        verb("verify", f"{NAME}/3", "--retrain")
    earlier = data.model_copy(update={"source": "https://example.org/pets.zip?sig=ab"})  # as versions of old have it
    _change_provenance(model, data=earlier)
    assert "source: https://example.org/pets.zip?..." in verb("lineage", f"{NAME}/3")[1]


def test_retraining_elsewhere_is_logged_first(
    verb: Verb, model: RegisteredModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _change_provenance(model, torch="1.0", device="tpu", parameters=SETTINGS)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verify, "_download", stop)
    with pytest.raises(KeyboardInterrupt):
        verb("verify", f"{NAME}/3", "--retrain")
    shown = capsys.readouterr().out
    assert "trained with the PyTorch 1.0, and now with" in shown
    assert "trained with the device tpu, and now with" in shown


@pytest.mark.parametrize(
    "words", [("verify", f"{NAME}/1"), ("lineage", f"{NAME}/1"), ("models", "diff", NAME, "1", "3")]
)
def test_a_pruned_version_is_reported_as_pruned(verb: Verb, model: RegisteredModel, words: tuple[str, ...]) -> None:
    model.prune(1)
    with pytest.raises(UserError, match=r"versions/1/version.json does not exist: the version is pruned"):
        verb(*words)


def test_lineage_is_a_tree_from_data_to_version(verb: Verb, model: RegisteredModel) -> None:
    code, shown = verb("lineage", f"{NAME}/2")
    assert code == 0
    lines = [line for line in shown.splitlines() if line.lstrip().startswith(("data", "└─"))]
    assert [line.replace("└─", "").split()[0] for line in lines] == ["data", "dataset", "model", "package", "version"]
    assert model.read_version(2).package_digest in shown
    assert "version 3 is the champion" in shown


@pytest.mark.parametrize("address", ["digits", "s3://bucket/models/digits", "digits/first"])
def test_an_invalid_address_is_refused(verb: Verb, address: str) -> None:
    with pytest.raises(UserError, match="is not a version; give NAME/VERSION"):
        verb("verify", address)


def test_the_documents_of_the_verbs(model: RegisteredModel, store: Store) -> None:
    def document(*words: str) -> Any:
        arguments = parse([*words, "--store", store.uri(), "--json"])
        assert resolve_name(f"{arguments.module}:handle")(arguments) == 0
        return type(arguments.document).parse(arguments.document.to_json(), "stdout")

    (listed,) = document("models").models
    assert (listed.name, listed.champion, [entry.version for entry in listed.versions]) == (NAME, 3, [1, 2, 3])
    assert document("models", "promote", NAME, "2").models[0].champion == 2
    assert document("models", "rollback", NAME).models[0].champion == 3
    diff = document("models", "diff", NAME, "2", "3")
    assert diff.versions == [2, 3] and diff.fields_that_differ["provenance.seed"] == [1, 2]
    store.put_bytes(b"{}", f"predictions/{NAME}/{'9' * 64}/predictions.json")
    pruned = document("models", "prune", "--keep", "1", "--predictions-older-than", "0", "--dry-run")
    assert pruned.is_dry_run and f"{NAME} version 1" in pruned.removed
    assert f"the predictions {'9' * 12} by {NAME}, 1 file, 0.0 MB" in pruned.removed
    assert document("verify", f"{NAME}/3").problems == []
    assert [one.kind for one in document("lineage", f"{NAME}/3").generations][-1] == "version"
