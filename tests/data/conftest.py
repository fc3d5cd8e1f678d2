"""What the tests of data share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.s3_server import Proxy, S3Server, proxy


@pytest.fixture
def s3_proxy(server: S3Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before the S3 server, which the environment names; the cache of shards is empty."""
    with proxy(server.address) as s3_proxy:
        for name, value in {**server.environment, "AWS_ENDPOINT_URL_S3": s3_proxy.url}.items():
            monkeypatch.setenv(name, value)
        yield s3_proxy
