"""Objects that the server has and cannot read, as after bit rot: it answers 500 to each read."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.shared.registry.registry import RegisteredModel
from components.shared.storage.client import Store, open_store
from components.shared.storage.errors import Unreadable
from tests.servers.s3_server import Proxy, S3Server, lose, proxy
from tests.small_packages import right, write_artifacts, write_dataset

pytestmark = pytest.mark.slow
IMAGES, NAME = 700, "digits"


@pytest.fixture
def network(server: S3Server, s3_variables: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Yield a proxy in front of the server, by which steps reach it; they try again at once."""
    monkeypatch.setattr("components.shared.storage.retry.MAX_WAIT_SECONDS", 0.0)
    with proxy(server.address) as network:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", network.url)
        yield network


@pytest.mark.parametrize("path", ["predictions.npy", "version.json", "model.pt2"])
def test_a_lost_object_is_named_and_healed_by_its_package(
    tmp_path: Path, uri: str, store: Store, server: S3Server, network: Proxy, path: str
) -> None:
    dataset = write_dataset(tmp_path / "dataset", IMAGES)
    first = write_artifacts(tmp_path / "first", dataset, right(IMAGES, range(600)))
    first.register(tmp_path / "out1", uri, NAME)
    name = f"models/{NAME}/versions/1/{path}"
    network.always = lose(name)
    proxied = open_store(uri, {**server.environment, "AWS_ENDPOINT_URL_S3": network.url})
    message = f"{store.uri(name)} cannot be read: {network.url} answered 500 .* times; try again later, or see"
    with pytest.raises(Unreadable, match=message):
        proxied.get_bytes(name)
    if path != "model.pt2":  # which a comparison does not read
        second = write_artifacts(tmp_path / "second", dataset, right(IMAGES, range(690)), seed=1)
        found = second.register(tmp_path / "out2", uri, NAME)
        assert (found["is_champion"], found["figures"]) == (False, None)
        assert re.match(f"not compared: {store.uri(name)} cannot be read: .*models promote", found["reason"])
    assert first.register(tmp_path / "out3", uri, NAME)["version"] == 1
    assert proxied.get_bytes(name)[0]
    assert {entry.state for entry in RegisteredModel(proxied, NAME).read().versions} == {"complete"}
