"""The version of a data set: equal for equal data, different for different data, without reading the data."""

import os
from pathlib import Path

import pytest

import pipeline
from components.resolve import resolve
from components.shared.core.errors import UserError
from components.shared.data.sources.http import fetch_url
from runner.parameters import parse_parameters
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
    versions = {name: resolve(store="", data=name) for name in names}
    assert len(set(versions.values())) == len(names)
    assert versions == {name: resolve(store="", data=name) for name in names}
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
    first = resolve(store="", data=pets.as_uri())
    assert resolve(store="", data=pets.as_uri()) == first
    change(pets)  # type: ignore[operator]
    assert resolve(store="", data=pets.as_uri()) != first


def test_hidden_files_change_nothing(pets: Path) -> None:
    first = resolve(store="", data=str(pets))
    (pets / ".cache").mkdir()
    (pets / ".cache" / "x.png").write_bytes(b"x")
    (pets / "cat" / ".DS_Store").write_bytes(b"x")
    assert resolve(store="", data=str(pets)) == first


def test_a_changed_archive_has_another_version(tmp_path: Path) -> None:
    archive = tmp_path / "pets.tar.gz"
    archive.write_bytes(ARCHIVE)
    first = resolve(store="", data=str(archive))
    assert resolve(store="", data=str(archive)) == first
    os.utime(archive, (0, 0))
    assert resolve(store="", data=str(archive)) != first


def test_the_version_of_a_url_is_its_etag(web_server: WebServer, cache: Path) -> None:
    first = resolve(store="", data=f"{web_server.url}/pets.tar.gz")
    assert first == resolve(store="", data=f"{web_server.url}/pets.tar.gz") == f"ETag: {etag(ARCHIVE)}"
    assert not list(cache.rglob(sha256(ARCHIVE))), "the file itself is not fetched"
    web_server.files["/pets.tar.gz"] = b"new"
    assert resolve(store="", data=f"{web_server.url}/pets.tar.gz") == f"ETag: {etag(b'new')}"


def test_without_an_etag_the_version_is_last_modified(web_server: WebServer) -> None:
    web_server.script = [answer(200, ARCHIVE, Last_Modified="Tue, 01 Sep 2026 00:00:00 GMT")]
    assert resolve(store="", data=f"{web_server.url}/pets.tar.gz") == "Last-Modified: Tue, 01 Sep 2026 00:00:00 GMT"


def test_without_validators_the_version_is_the_digest(web_server: WebServer) -> None:
    web_server.script = [answer(200, ARCHIVE)] * 2
    assert resolve(store="", data=f"{web_server.url}/pets.tar.gz") == f"sha256:{sha256(ARCHIVE)}"


def test_a_required_digest_is_the_version() -> None:
    with run_web_server() as gone:
        pass
    assert resolve(store="", data=f"{gone.url}/pets.tar.gz#sha256={'a' * 64}") == f"sha256:{'a' * 64}"


def test_the_last_version_is_used_if_the_server_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    with run_web_server() as gone:
        gone.files["/pets.tar.gz"] = ARCHIVE
        url = f"{gone.url}/pets.tar.gz"
        with_record = fetch_url(url).version
    assert resolve(store="", data=url) == with_record == f"ETag: {etag(ARCHIVE)}"
    with pytest.raises(UserError, match="could not be read"):
        resolve(store="", data=url.replace("pets", "others"))


def test_a_transient_failure_is_retried(web_server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    web_server.script = [answer(503), answer(429)]
    assert resolve(store="", data=f"{web_server.url}/pets.tar.gz") == f"ETag: {etag(ARCHIVE)}"


@pytest.mark.slow  # needs the real server
def test_an_inaccessible_store_is_refused(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    assert resolve(store=f"s3://{BUCKET}/prefix", data="digits")
    with pytest.raises(UserError, match=r"s3://no-such-bucket/.*there is no such bucket; create it"):
        resolve(store="s3://no-such-bucket/prefix", data="digits")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(UserError, match="the secret key does not belong to the access key; check AWS_ACCESS_KEY_ID"):
        resolve(store=f"s3://{BUCKET}/prefix", data="digits")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("learning_rate", float("nan")),
        ("optimizer", "adam"),
        ("threads", -1),
        ("min_recall", 1.5),
        ("data", "mnits"),
        ("data", "ftp://example.org/a.zip"),
        ("data", "file:///no/such/folder"),
        ("data", "https://example.org/picture.png"),
    ],
)
def test_every_parameter_of_the_run_is_checked(name: str, value: object) -> None:
    parameters = parse_parameters(pipeline.training, ["data=digits"])
    assert resolve(**parameters)
    with pytest.raises(UserError, match=f"{name}="):
        resolve(**{**parameters, name: value})


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"network": "resnet19"}, r"there is no network 'resnet19' \(did you mean resnet18"),
        ({"image_size": 28}, "lenet5 accepts images of 32 x 32 pixels, not 28 x 28; prepare them with image_size=32"),
        ({"network": "inception_v4", "image_size": 16}, r"23 x 23 pixels or more, not 16 x 16; .*image_size=23"),
    ],
)
def test_an_unsuitable_network_is_refused(words: dict[str, object], reason: str) -> None:
    parameters = parse_parameters(pipeline.training, ["data=digits"])
    assert resolve(**{**parameters, "network": "timm:efficientnet_b0", "image_size": 16})
    with pytest.raises(UserError, match=reason):
        resolve(**{**parameters, **words})
