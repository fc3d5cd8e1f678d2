"""What the code of cd652ef has written is read by the present code, and its trainings give the same weights still.

tests/fixtures/cd652ef/README.md says what there is and how it was made: pytest tests/test_references.py
"""

import csv
import json
import lzma
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import pipeline
from components.shared.core.errors import UserError
from components.shared.core.files import sha256_file
from components.shared.data.dataset import SPLITS, earlier_digest
from components.shared.data.dataset_store import SHARDS, open_stored_dataset, read_recipe
from components.shared.evaluation.exported_model import PackageDocument
from components.shared.models.document import ModelDocument
from components.shared.registry.registry import RegisteredModel, model_names
from components.shared.serving import rollout
from components.shared.serving.inference_service import RUNTIME
from components.shared.storage.client import Store, open_store
from components.shared.training.checkpoints.manager import run_resumably
from components.shared.training.checkpoints.state import CheckpointDocument, StateDict
from runner.parameters import flat, parse_inputs, parse_parameters
from runner.prediction import predict
from runner.registry import models, verify
from runner.schedules import apply, deploy_file, recurring, schedule
from runner.serving import deploy
from tests.conftest import Runner
from tests.model_server.running_server import ask, binary, floats, head, server_process
from tests.runner.verbs import run_verb
from tests.servers.kfp_messages import parse, to_json
from tests.servers.kfp_server import KfpServer
from tests.servers.kserve.server import kserve_server
from tests.servers.s3_server import BUCKET, S3Server
from tests.serving.conftest import add_namespace
from tests.training.states import state_of

FOLDER = Path(__file__).parent / "fixtures" / "cd652ef"
PREFIX, NAMESPACE = "team", "team-vision"
CHAMPION = 2  # of the kept store
OLD_IMAGES = 20
STOPPED_AFTER = 30  # steps, the training whose checkpoint is kept
SUNDAYS = ["epochs=10", 'node_selector={"disk": "ssd"}', "flip=true"]
CRONS = {"nightly": "0 0 2 * * *", "sunday": "0 0 4 * * sun", "daily": "0 0 0 * * *", "often": ""}
WEIGHTS: list[dict[str, Any]] = [
    json.loads((FOLDER / name).read_text()) for name in ("weights.json", "weights_intel.json")
]
RECURRING: list[dict[str, Any]] = json.loads((FOLDER / "recurring_run.json").read_text())


@pytest.fixture(scope="module")
def kept(server: S3Server) -> Store:
    """Unpack the store of cd652ef into a server, with the metadata of each object."""
    with tarfile.open(fileobj=BytesIO(lzma.decompress((FOLDER / "store.tar.xz").read_bytes()))) as tar:
        files = {member.name: tar.extractfile(member) for member in tar.getmembers()}
        contents = {name: file.read() for name, file in files.items() if file}
    metadata = json.loads(contents.pop("metadata.json"))
    assert {f"objects/{name}" for name in metadata} == contents.keys()
    for name, headers in metadata.items():
        content = contents[f"objects/{name}"]
        server.client.put_object(BUCKET, f"{PREFIX}/{name}", BytesIO(content), len(content), metadata=headers)
    return open_store(f"s3://{BUCKET}/{PREFIX}", server.environment)


@pytest.fixture
def reached(kept: Store, server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Have the environment tell how the store is reached."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return kept


@pytest.mark.slow
def test_the_registry_opens_with_both_versions(reached: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert model_names(reached) == ["digits"]
    model = RegisteredModel(reached, "digits")
    register = model.read()
    assert [(entry.version, entry.state) for entry in register.versions] == [(1, "complete"), (2, "complete")]
    assert register.champion == CHAMPION
    assert [decision.action for decision in register.decisions] == ["register", "register"]
    assert [model.read_version(number).provenance.seed for number in (1, 2)] == [0, 1]
    assert run_verb(models, "list", "--store", reached.uri()) == 0
    listed = [line.split()[:3] for line in capsys.readouterr().out.splitlines()[1:]]
    assert listed == [["digits", "1", "complete"], ["digits", "2", "champion"]]


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_each_version_is_intact_but_for_its_pickle(
    reached: Store, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    assert run_verb(verify, f"digits/{number}", "--store", reached.uri()) == 1
    *files, problem = capsys.readouterr().out.splitlines()
    assert all("sha256=" in line for line in files) and len(files) == 7, "nothing else is wrong"
    assert f"versions/{number}/model.pt2 holds pickles" in problem and ": data/sample_inputs/model.pt; run" in problem


@pytest.fixture
def old_test_images(reached: Store, tmp_path: Path) -> tuple[Path, list[str]]:
    """Return a folder of test images of the champion, and the classes that cd652ef predicted for them."""
    model = RegisteredModel(reached, "digits")
    document = model.read_version(CHAMPION)
    expected = document.provenance.dataset_digest
    recipes = {entry.name.split("/")[1] for entry in reached.list("datasets")} - {"shards"}
    (recipe,) = [name for name in recipes if read_recipe(reached, name)[0] == expected]
    data = open_stored_dataset(reached.uri(f"datasets/{recipe}"), tmp_path)
    predicted = model.versions.read_predictions(document, model.entry(CHAMPION).images)[:OLD_IMAGES].argmax(axis=1)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, image in enumerate(data.take("test", range(OLD_IMAGES))):
        Image.fromarray(image[0]).save(folder / f"{number:02}.png")
    return folder, [document.classes[number] for number in predicted]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["version", "address", "package"])
def test_an_old_package_predicts_what_it_predicted_then(
    reached: Store,
    old_test_images: tuple[Path, list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    pictures, expected = old_test_images
    named, package = "digits/champion", tmp_path / "package"
    if kind == "package":
        named = str(_old_package(reached, package))
    store = ["--store", reached.uri()]
    if kind == "address":
        named, store = RegisteredModel(reached, "digits").uri(CHAMPION), []
    assert run_verb(predict, str(pictures), "--model", named, "--output", str(tmp_path / "out"), *store) == 0
    of_version = "version 2 of digits has no reference; register a newer evaluation of it"
    of_package = f"beside {package} is no evaluation with a drift.json"
    assert (of_package if kind == "package" else of_version) in capsys.readouterr().out
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [(row["source"], row["class"], row["error"]) for row in rows] == [
        (f"{number:02}.png", name, "") for number, name in enumerate(expected)
    ]


def _old_package(store: Store, folder: Path) -> Path:
    """Write the champion's package to a new folder, and return that."""
    model = RegisteredModel(store, "digits")
    folder.mkdir()
    for path in ("package.json", model.versions.onnx_path):
        model.versions.download(model.read_version(CHAMPION), path, folder / Path(path).name)
    assert "preparation" not in json.loads((folder / "package.json").read_text())
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["champion", "version", "package"])
def test_an_old_package_is_served_and_predicts_as_then(
    reached: Store, old_test_images: tuple[Path, list[str]], tmp_path: Path, kind: str
) -> None:
    pictures, expected = old_test_images
    given = {"champion": "digits", "version": f"digits/{CHAMPION}", "package": str(tmp_path / "package")}[kind]
    digest = PackageDocument.read(_old_package(reached, tmp_path / "package") / "package.json").digest
    name, version = ("model", digest[:12]) if kind == "package" else ("digits", str(CHAMPION))
    images = np.stack([np.asarray(Image.open(path))[None] for path in sorted(pictures.iterdir())])
    body, headers = binary(images)
    with server_process("pipeline.py", "serve", "--model", given, "--store", reached.uri()) as (_, address, lines):
        assert lines[0].startswith(f"{name}, version {version}")
        answer = ask(address, f"/v2/models/{name}/infer", body, **headers)
        told = ask(address, f"/v2/models/{name}/config").json["parameters"]["package_digest"]["string_value"]
    assert head(answer)["model_version"] == version and told == digest
    assert floats(answer).argmax(axis=1).astype(str).tolist() == expected


@pytest.mark.slow
def test_an_old_version_is_deployed_untested_as_it_says(
    reached: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rollout, "POLL_SECONDS", 0)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    words = ["digits", "--store", reached.uri(), "--serving-namespace", "serve", "--pause", "0"]
    with kserve_server() as cluster:
        cluster.write_kubeconfig(tmp_path / "kubeconfig")
        add_namespace(cluster, "serve")
        cluster.add_runtime(RUNTIME)
        with pytest.raises(UserError, match=r"^digits version 2 keeps no test images, .* deploy digits/2 --no-smoke-"):
            run_verb(deploy, *words)
        assert cluster.changes == []
        assert run_verb(deploy, *words, "--no-smoke-test") == 0
        (service,) = [found for found in cluster.objects.values() if "predictor" in found.get("spec", {})]
    uri = RegisteredModel(reached, "digits").uri(CHAMPION)
    assert service["spec"]["predictor"]["model"]["storageUri"] == f"{uri}/serving"
    assert "version 2    100 % of the traffic, ready" in capsys.readouterr().out


@pytest.mark.slow
def test_the_champions_predictions_are_read(reached: Store) -> None:
    model = RegisteredModel(reached, "digits")
    document = model.read_version(CHAMPION)
    images = model.entry(CHAMPION).images
    assert model.versions.read_predictions(document, images).shape == (images, 10)


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_the_prepared_data_of_a_version_open_intact(reached: Store, tmp_path: Path, number: int) -> None:
    expected = RegisteredModel(reached, "digits").read_version(number).provenance.dataset_digest
    recipes = {entry.name.split("/")[1] for entry in reached.list("datasets")} - {"shards"}
    (recipe,) = [name for name in recipes if read_recipe(reached, name)[0] == expected]
    data = open_stored_dataset(reached.uri(f"datasets/{recipe}"), tmp_path)
    assert data.digest == expected == earlier_digest(data)
    assert {split: sum(len(labels) for _, labels in data.shards(split)) for split in SPLITS} == data.counts


@pytest.mark.slow
def test_the_shards_are_what_their_names_say(reached: Store, tmp_path: Path) -> None:
    recipes = {entry.name.split("/")[1] for entry in reached.list("datasets")} - {"shards"}
    named = set[str]().union(*(read_recipe(reached, recipe)[1] for recipe in recipes))
    assert {entry.name for entry in reached.list(SHARDS)} == named
    for name in named:
        reached.get_file(name, tmp_path / "shard.npy", name.removeprefix(f"{SHARDS}/").removesuffix(".npy"))


class Stopped:
    """A training that takes over the state of a checkpoint and is at its end then."""

    def __init__(self, key: str, tensors: dict[str, torch.Tensor]) -> None:
        self.key, self.completed_steps = key, 0
        self.found: CheckpointDocument | None = None
        self._tensors = tensors

    def steps(self) -> Iterator[None]:
        yield from ()

    def state_dict(self) -> StateDict:
        tensors = {name: torch.zeros_like(tensor) for name, tensor in self._tensors.items()}
        return StateDict(tensors, state_of(self.key, step=0))

    def load_state_dict(self, state: StateDict) -> None:
        assert state.tensors.keys() == self._tensors.keys()
        assert all(torch.equal(tensor, self._tensors[name]) for name, tensor in state.tensors.items())
        self.found = state.document
        self.completed_steps = STOPPED_AFTER


@pytest.mark.slow
def test_the_checkpoint_of_a_stopped_training_loads(reached: Store, tmp_path: Path) -> None:
    (entry,) = reached.list("checkpoints")
    _, key, name = entry.name.split("/")
    assert name == f"{STOPPED_AFTER:010}.safetensors"
    reached.get_file(entry.name, tmp_path / name)
    with safe_open(tmp_path / name, "pt") as file:
        training = Stopped(key, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    (tmp_path / "scratch").mkdir()
    assert run_resumably(training, reached, 3600, tmp_path / "scratch") == [STOPPED_AFTER]
    assert training.completed_steps == STOPPED_AFTER, "it was restored"
    assert training.found and training.found.key == key


def test_the_deploy_file_is_read() -> None:
    found = deploy_file.read(FOLDER / "deploy.yaml")
    assert (found.pipeline, found.namespace) == (pipeline.training.name, "team-vision")
    plans = {plan.name: plan for plan in found.schedules}
    assert list(plans) == ["nightly", "sunday", "daily", "often"]
    common = ["store=s3://bucket/team", "data=fashion-mnist", "min_accuracy=0.85", "min_recall=0.6"]
    own = {"nightly": [], "sunday": SUNDAYS, "daily": ["seed=7"], "often": []}
    assert {name: plan.words for name, plan in plans.items()} == {name: common + words for name, words in own.items()}
    assert {name: plan.schedule.cron for name, plan in plans.items()} == CRONS
    assert [plan.schedule.seconds for plan in found.schedules] == [0, 0, 0, 6 * 3600]
    flags = [
        (plan.follow_latest, plan.enabled, plan.catch_up, plan.max_concurrency)
        for plan in (plans["nightly"], plans["sunday"], plans["often"])
    ]
    assert flags == [(False, True, False, 1), (True, False, True, 3), (False, True, False, 10)]
    assert parse_parameters(pipeline.training, plans["sunday"].words)["node_selector"] == {"disk": "ssd"}


def test_recurring_runs_are_read() -> None:
    found = {
        one["returned"]["display_name"]: recurring.read(parse(one["returned"], "V2beta1RecurringRun"))
        for one in RECURRING
    }
    assert list(found) == ["by-hand", "latest-by-hand", "nightly", "sunday", "daily", "often"]
    by_hand, latest = found["by-hand"], found["latest-by-hand"]
    parameters = {"data": "fashion-mnist", "epochs": 5, "node_selector": {"disk": "ssd"}}
    assert (by_hand.schedule.cron, by_hand.parameters, by_hand.enabled) == ("0 0 2 * * *", parameters, True)
    assert (latest.schedule.seconds, latest.version_id, latest.catch_up) == (6 * 3600, recurring.FOLLOWS_LATEST, True)
    assert latest.max_concurrency == 3
    for plan in deploy_file.read(FOLDER / "deploy.yaml").schedules:
        one = found[plan.name]
        assert one.parameters == parse_parameters(pipeline.training, plan.words)
        as_now = recurring.RecurringRun(**{**vars(one), "parameters": parse_inputs(pipeline.training, plan.words)})
        moved = {"inputs"} if plan.name == "sunday" else set()
        assert recurring.differences(one, as_now).keys() == moved, "flip has no input of its own any more"
        assert (one.schedule, one.description) == (plan.schedule, apply.MANAGED)
        assert (one.enabled, one.catch_up, one.max_concurrency) == (plan.enabled, plan.catch_up, plan.max_concurrency)
        assert (one.version_id == recurring.FOLLOWS_LATEST) == plan.follow_latest


@pytest.mark.slow
def test_the_verbs_send_kfp_what_they_sent_by_flat_names(
    kfp_api: KfpServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KFP_NAMESPACE", NAMESPACE)
    kfp_api.multi_user, kfp_api.namespaces = True, {NAMESPACE}
    for words in dict.fromkeys(tuple(one["words"]) for one in RECURRING):
        verb = {"schedule": schedule, "apply": apply}[words[0]]
        named = [str(FOLDER / word) if word == "deploy.yaml" else word for word in words[1:]]
        assert run_verb(verb, *named, pipeline=pipeline.training) == 0
    sent = [request.json for request in kfp_api.asked("POST /recurringruns")]
    assert [with_flat_names(without_ids(one)) for one in sent] == [without_ids(one["sent"]) for one in RECURRING]
    returned = [with_flat_names(without_ids(to_json(item))) for item in kfp_api.recurring_runs.values()]
    assert returned == [without_ids(one["returned"]) for one in RECURRING]
    inputs = pipeline.training.component_spec.inputs
    for one, recorded in zip(sent, RECURRING, strict=True):
        before = recorded["sent"]["runtime_config"]["parameters"]
        own = {name: value for name, value in before.items() if name in inputs}
        options = {"options": {"flip": True}} if recorded["sent"]["display_name"] == "sunday" else {}
        assert one["runtime_config"]["parameters"] == {**own, **options}


def with_flat_names(document: dict[str, Any]) -> dict[str, Any]:
    """Name parameters as cd652ef did, which had an input for each."""
    assert document["runtime_config"].keys() == {"parameters"}
    return {**document, "runtime_config": {"parameters": flat(document["runtime_config"]["parameters"])}}


def without_ids(document: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a server chooses itself, but keep whether a version is named."""
    names = {"experiment_id", "recurring_run_id", "created_at", "updated_at", "service_account"}
    names.add("pipeline_version_reference")
    kept = {name: value for name, value in document.items() if name not in names}
    return {**kept, "references": sorted(document["pipeline_version_reference"])}


def machine() -> dict[str, str]:
    """What bit-identical weights depend on: another kind of CPU adds in another order."""
    facts = dict(
        line.partition(":")[::2] for line in Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    )
    found = {key.strip().replace(" ", "_"): value.strip() for key, value in facts.items()}
    own = {"cpu_capability": torch.backends.cpu.get_cpu_capability(), "torch": torch.__version__}
    return own | {name: found[name] for name in ("cpu_family", "model")}


@pytest.mark.slow
@pytest.mark.parametrize("graph", WEIGHTS[0]["trainings"])
def test_a_training_gives_the_recorded_weights(run_here: Runner, tmp_path: Path, graph: str) -> None:
    here = machine()
    recorded = next((one for one in WEIGHTS if here.items() <= one["machine"].items()), None)
    if not recorded:
        pytest.skip(f"no weights were recorded with {here}")
    expected = recorded["trainings"][graph]
    done = run_here("--graph", graph, *expected["words"])
    assert (done.returncode, done.stderr) == (0, "")
    model = tmp_path / "runs" / "latest" / "model"
    assert sha256_file(model / "model.safetensors") == expected["weights_sha256"], f"recorded with {here}"
    document = ModelDocument.read(model / "model.json")
    assert (document.parameters, document.processes) == (expected["parameters"], expected["processes"])
