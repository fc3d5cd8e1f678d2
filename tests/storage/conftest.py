"""A store on the real S3 server, directly and through a network with scripted faults."""

import time
from collections.abc import Iterator

import pytest

from components.shared.storage.client import Store, open_store
from tests.servers.s3_server import BUCKET, Proxy, S3Server, proxy


@pytest.fixture
def uri(request: pytest.FixtureRequest) -> str:
    """Return a prefix for this test only."""
    return f"s3://{BUCKET}/tests/{request.node.name.partition('[')[0]}-{time.monotonic_ns()}"


@pytest.fixture
def store(server: S3Server, uri: str) -> Store:
    """Return the store at `uri`."""
    return open_store(uri, server.environment)


@pytest.fixture
def network(server: S3Server) -> Iterator[Proxy]:
    """Yield a proxy in front of the server."""
    with proxy(server.address) as network:
        yield network


@pytest.fixture
def proxied(server: S3Server, uri: str, network: Proxy) -> Store:
    """Return the store at `uri`, reached through the proxy."""
    return open_store(uri, {**server.environment, "AWS_ENDPOINT_URL_S3": network.url})


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the list of waits between attempts, which are recorded and not waited."""
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    return waits
