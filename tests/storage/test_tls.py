"""TLS: certificates that are trusted by name, and mix-ups of http:// and https://."""

from pathlib import Path

import pytest

from components.shared.storage.client import open_store
from tests.sample_files import sha256
from tests.servers.s3_server import S3Server
from tests.storage.samples import LARGE, error_line, write

pytestmark = pytest.mark.slow  # each test needs the real server


def test_mixing_up_http_and_https_is_reported(server: S3Server, uri: str) -> None:
    plain = server.tls_url.replace("https", "http")
    reported = error_line(uri, {**server.environment, "AWS_ENDPOINT_URL_S3": plain})
    assert "the server expects TLS; use https:// in AWS_ENDPOINT_URL_S3" in reported
    tls = server.url.replace("http", "https")
    reported = error_line(uri, {**server.environment, "AWS_ENDPOINT_URL_S3": tls})
    assert f"{tls} does not speak TLS; use http:// instead of https://" in reported


def test_a_self_signed_certificate_can_be_trusted(server: S3Server, uri: str, tmp_path: Path) -> None:
    environment = {**server.environment, "AWS_ENDPOINT_URL_S3": server.tls_url}
    assert "not trusted (self-signed certificate); name its authority in AWS_CA_BUNDLE" in error_line(uri, environment)
    environment["AWS_CA_BUNDLE"] = str(server.certificate)
    store = open_store(uri, environment)
    store.put_file(write(tmp_path / "file", LARGE), "file")
    assert store.get_file("file", tmp_path / "got") == sha256(LARGE)
    reported = error_line(uri, {**environment, "AWS_CA_BUNDLE": str(tmp_path / "none")})
    assert "is not a file; give the file of the trusted certificate authorities" in reported


def test_an_authority_that_a_pod_mounts_is_trusted(server: S3Server, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**server.environment, "AWS_ENDPOINT_URL_S3": server.tls_url}
    monkeypatch.setattr("components.shared.storage.endpoint.MOUNTED_AUTHORITY", server.certificate)
    open_store(uri, environment).check_access()


def test_a_certificate_for_another_host_is_reported(server: S3Server, uri: str) -> None:
    environment = {**server.environment, "AWS_CA_BUNDLE": str(server.certificate)}
    environment["AWS_ENDPOINT_URL_S3"] = server.tls_url.replace("127.0.0.1", "localhost")
    reported = error_line(uri, environment)
    assert "not trusted (Hostname mismatch" in reported and "; use a host name that the certificate holds" in reported
