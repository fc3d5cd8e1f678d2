"""The version of a data set: equal for equal data, different for different data, without reading the data."""

import os
from pathlib import Path
from typing import Any

import pytest

from components.resolve import Resolved, resolve
from components.shared.core.errors import UserError
from components.shared.data.sources.http import fetch_url
from components.shared.parameters.evaluation import EvaluateRecipe
from components.shared.parameters.form import inputs_of
from components.shared.parameters.preparation import PreprocessRecipe
from components.shared.parameters.registration import RegisterRecipe
from components.shared.parameters.training import TrainingRecipe
from components.shared.training.search.planned import Planned
from tests.data.versions import version_of
from tests.sample_files import picture, sha256, tar_bytes
from tests.servers.s3_server import BUCKET, S3Server
from tests.servers.web_server import WebServer, answer, etag, run_web_server

pytestmark = pytest.mark.usefixtures("cache")
ARCHIVE = tar_bytes({"cat/1.png": picture(0), "dog/1.png": picture(1)})


@pytest.fixture
def web_server(web_server: WebServer) -> WebServer:
    """The server, with an archive."""
    web_server.files["/pets.tar.gz"] = ARCHIVE
    return web_server


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for name in ("cat/1.png", "dog/1.png"):
        (tmp_path / "pets" / name).parent.mkdir(parents=True)
        (tmp_path / "pets" / name).write_bytes(picture(0))
    return tmp_path / "pets"


def test_known_data_sets_have_fixed_versions(cache: Path) -> None:
    names = ("mnist", "fashion-mnist", "kmnist", "cifar10", "digits")
    versions = {name: version_of(name) for name in names}
    assert len(set(versions.values())) == len(names)
    assert versions == {name: version_of(name) for name in names}
    assert not cache.exists()


def _add(pets: Path) -> None:
    (pets / "cat" / "2.png").write_bytes(picture(2))


def _remove(pets: Path) -> None:
    (pets / "cat" / "1.png").unlink()


def _rename(pets: Path) -> None:
    (pets / "cat" / "1.png").rename(pets / "dog" / "2.png")


def _overwrite_with_as_many_bytes(pets: Path) -> None:
    path = pets / "cat" / "1.png"
    path.write_bytes(path.read_bytes()[::-1])


@pytest.mark.parametrize("change", [_add, _remove, _rename, _overwrite_with_as_many_bytes])
def test_a_changed_folder_has_another_version(pets: Path, change: object) -> None:
    first = version_of(pets.as_uri())
    assert version_of(pets.as_uri()) == first
    change(pets)  # type: ignore[operator]
    assert version_of(pets.as_uri()) != first


def test_hidden_files_change_nothing(pets: Path) -> None:
    first = version_of(str(pets))
    (pets / ".cache").mkdir()
    (pets / ".cache" / "x.png").write_bytes(b"x")
    (pets / "cat" / ".DS_Store").write_bytes(b"x")
    assert version_of(str(pets)) == first


def test_a_changed_archive_has_another_version(tmp_path: Path) -> None:
    archive = tmp_path / "pets.tar.gz"
    archive.write_bytes(ARCHIVE)
    first = version_of(str(archive))
    assert version_of(str(archive)) == first
    os.utime(archive, (0, 0))
    assert version_of(str(archive)) != first


def test_the_version_of_a_url_is_its_etag(web_server: WebServer, cache: Path) -> None:
    first = version_of(f"{web_server.url}/pets.tar.gz")
    assert first == version_of(f"{web_server.url}/pets.tar.gz") == f"ETag: {etag(ARCHIVE)}"
    assert not list(cache.rglob(sha256(ARCHIVE))), "the file itself is not fetched"
    web_server.files["/pets.tar.gz"] = b"new"
    assert version_of(f"{web_server.url}/pets.tar.gz") == f"ETag: {etag(b'new')}"


def test_without_an_etag_the_version_is_last_modified(web_server: WebServer) -> None:
    web_server.script = [answer(200, ARCHIVE, Last_Modified="Tue, 01 Sep 2026 00:00:00 GMT")]
    assert version_of(f"{web_server.url}/pets.tar.gz") == "Last-Modified: Tue, 01 Sep 2026 00:00:00 GMT"


def test_without_validators_the_version_is_the_digest(web_server: WebServer) -> None:
    web_server.script = [answer(200, ARCHIVE)] * 2
    assert version_of(f"{web_server.url}/pets.tar.gz") == f"sha256:{sha256(ARCHIVE)}"


def test_a_required_digest_is_the_version() -> None:
    with run_web_server() as gone:
        pass
    assert version_of(f"{gone.url}/pets.tar.gz#sha256={'a' * 64}") == f"sha256:{'a' * 64}"


def test_the_last_version_is_used_if_the_server_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    with run_web_server() as gone:
        gone.files["/pets.tar.gz"] = ARCHIVE
        url = f"{gone.url}/pets.tar.gz"
        with_record = fetch_url(url).version
    assert version_of(url) == with_record == f"ETag: {etag(ARCHIVE)}"
    with pytest.raises(UserError, match="could not be read"):
        version_of(url.replace("pets", "others"))


def test_a_transient_failure_is_retried(web_server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    web_server.script = [answer(503), answer(429)]
    assert version_of(f"{web_server.url}/pets.tar.gz") == f"ETag: {etag(ARCHIVE)}"


@pytest.mark.slow  # needs the real server
def test_an_inaccessible_store_is_refused(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    assert version_of("digits", f"s3://{BUCKET}/prefix")
    with pytest.raises(UserError, match=r"s3://no-such-bucket/.*there is no such bucket; create it"):
        version_of("digits", "s3://no-such-bucket/prefix")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(UserError, match="the secret key does not belong to the access key; check AWS_ACCESS_KEY_ID"):
        version_of("digits", f"s3://{BUCKET}/prefix")


def resolved(graph: str = "training", **parameters: Any) -> Resolved:
    """Run the step with some parameters of a run of the graph, by the names that people use."""
    given = {"data": "digits", **parameters}
    inputs = {name: given.pop(name) for name in list(given) if name in inputs_of(graph)}
    return resolve(graph=graph, options=given, **inputs)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("learning_rate", float("nan")),
        ("optimizer", "adam"),
        ("threads", -1),
        ("min_recall", 1.5),
        ("significance", 2),
        ("train_cpu", "many"),
        ("tolerations", [{"kay": "gpu"}]),
        ("data", "mnits"),
        ("data", "ftp://example.org/a.zip"),
        ("data", "file:///no/such/folder"),
        ("data", "https://example.org/picture.png"),
    ],
)
def test_every_parameter_of_the_run_is_checked(name: str, value: Any) -> None:
    assert resolved()
    with pytest.raises(UserError, match=f"{name}="):
        resolved(**{name: value})


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"network": "resnet19"}, r"there is no network 'resnet19' \(did you mean resnet18"),
        ({"image_size": 28}, "lenet5 accepts images of 32 x 32 pixels, not 28 x 28; prepare them with image_size=32"),
        ({"network": "inception_v4", "image_size": 16}, r"23 x 23 pixels or more, not 16 x 16; .*image_size=23"),
    ],
)
def test_an_unsuitable_network_is_refused(words: dict[str, Any], reason: str) -> None:
    assert resolved(network="timm:efficientnet_b0", image_size=16)
    with pytest.raises(UserError, match=reason):
        resolved(**words)


def test_each_step_gets_the_whole_recipe_of_its_work() -> None:
    given: dict[str, Any] = {
        "seed": 3,
        "threads": 2,
        "store": "",
        "image_size": 28,
        "epochs": 5,
        "mixup": 0.25,
        "batch_size": "auto",
    }
    found = resolved(network="resnet18", significance=0.5, min_recall=0.75, **given)
    preparation, training = PreprocessRecipe.read(found.preparation), TrainingRecipe.read(found.training)
    assert preparation == PreprocessRecipe(image_size=28, seed=3)
    changed = {name: given[name] for name in ("seed", "threads", "epochs", "mixup", "batch_size")}
    assert training == TrainingRecipe.of(network="resnet18", **changed)
    assert EvaluateRecipe.read(found.evaluation) == EvaluateRecipe(min_recall=0.75, threads=2)
    assert RegisterRecipe.read(found.registration) == RegisterRecipe(significance=0.5, min_recall=0.75, threads=2)
    assert found.Output == []


def test_numbers_in_other_types_give_the_same_recipes() -> None:
    whole: dict[str, Any] = {"epochs": 5.0, "batch_size": 64, "learning_rate": 1, "patience": 2.0, "gpus": 0.0}
    assert resolved(**whole) == resolved(epochs=5, batch_size="64", learning_rate=1.0, patience=2, gpus="0")


@pytest.mark.parametrize(
    ("changed", "kept"),
    [
        ({"min_accuracy": 0.5}, {"reading", "preparation", "training"}),
        ({"epochs": 9}, {"reading", "preparation", "evaluation", "export", "registration"}),
        ({"model_name": "a"}, {"reading", "preparation", "training", "evaluation", "export"}),
        ({"handover_mib": 9}, {"reading", "training", "evaluation", "export", "registration"}),
        ({"data_layout": "groups"}, {"training", "evaluation", "export", "registration"}),
        ({"train_cpu": "9"}, {"reading", "preparation", "training", "evaluation", "export", "registration"}),
    ],
)
def test_only_the_recipes_that_a_parameter_is_of_change(changed: dict[str, Any], kept: set[str]) -> None:
    before, after = resolved()._asdict(), resolved(**changed)._asdict()
    same = {name for name in after if after[name] == before[name]}
    assert same == kept | {"version", "prepared_by", "Output"}


def test_a_sweep_is_planned_and_its_settings_are_checked() -> None:
    settings = [{"network": "resnet18"}, {"network": "inception_v4"}, {"epochs": 2}]
    found = resolved("sweep", network="resnet18", image_size=32, settings=settings, parallel=2)
    pods = [Planned.read(text) for text in found.Output]
    assert [[trial.settings for trial in pod.trials] for pod in pods] == [settings[::2], settings[1::2]]
    assert {pod.common for pod in pods} == {TrainingRecipe.read(found.training)}
    with pytest.raises(UserError, match="trial 2: inception_v4 accepts images of 23 x 23 pixels or more, not 16 x 16"):
        resolved("sweep", network="resnet18", image_size=16, settings=settings)
    with pytest.raises(UserError, match=r"settings, trial 1: 'learning_rte' .* \(did you mean learning_rate"):
        resolved("sweep", settings=[{"learning_rte": 0.1}])


@pytest.mark.slow  # needs the real server
@pytest.mark.usefixtures("s3_variables")
def test_other_nodes_read_data_of_any_size_from_the_store(uri: str) -> None:
    found = resolved("distributed", store=uri, nodes=2, handover_mib=99)
    assert PreprocessRecipe.read(found.preparation).handover_mib == 0


def test_the_inputs_of_other_graphs_are_ignored() -> None:
    others: dict[str, Any] = {"settings": [], "nodes": 1}  # the defaults of the port
    assert resolve(graph="training", data="digits", options={}, **others) == resolved()


def test_an_option_is_known_and_no_input() -> None:
    with pytest.raises(
        UserError, match=r"^options: 'mixap' is not a parameter \(did you mean mixup\?\); give one of: "
    ):
        resolve(graph="training", data="digits", options={"mixap": 0.2})
    with pytest.raises(UserError, match=r"^options has epochs, which is an input of its own; give it as epochs="):
        resolve(graph="training", data="digits", epochs=3, options={"epochs": 3})
