"""The real S3 server, reached through a network with scripted faults."""

from collections.abc import Iterator

import pytest

from components.shared.storage.client import Store, open_store
from tests.servers.s3_server import Proxy, S3Server, proxy


@pytest.fixture
def network(server: S3Server) -> Iterator[Proxy]:
    """Yield a proxy in front of the server."""
    with proxy(server.address) as network:
        yield network


@pytest.fixture
def proxied(server: S3Server, uri: str, network: Proxy) -> Store:
    """Return the store at `uri`, reached through the proxy."""
    return open_store(uri, {**server.environment, "AWS_ENDPOINT_URL_S3": network.url})
