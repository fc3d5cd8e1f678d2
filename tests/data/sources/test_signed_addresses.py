"""An address with a signature in its query is fetched as it is; the query is written and printed nowhere."""

import re
import ssl
from pathlib import Path

import pytest

from components.download import download
from components.resolve import resolve
from components.shared.core.errors import UserError
from components.shared.data.raw import open_raw
from runner.local.certificates import CERTIFICATE, write_certificates
from runner.local.certificates import KEY as KEY_FILE
from tests.data.versions import READING, version_of
from tests.sample_files import picture, tar_bytes
from tests.servers.web_server import WebServer, answer, etag, serving

PETS = tar_bytes({f"{kind}/{number}.png": picture(number) for kind in ("cat", "dog") for number in range(3)})
KEY = "5ca1ab1e"
QUERY = f"?X-Amz-Credential=me&X-Amz-Signature={KEY}"

pytestmark = pytest.mark.usefixtures("cache", "waits")


@pytest.fixture
def signed(web_server: WebServer) -> str:
    """An address that the server knows only with its query."""
    web_server.files[f"/pets.tar.gz{QUERY}"] = PETS
    return f"{web_server.url}/pets.tar.gz{QUERY}"


def files_with(text: str, folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.mark.parametrize("script", [[], [answer(503), answer(503)]], ids=["at once", "retried"])
def test_a_signature_fetches_and_is_told_nowhere(
    web_server: WebServer, signed: str, script: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    web_server.script = list(script)  # type: ignore[arg-type]
    version = version_of(signed)
    download(data=signed, version=version, recipe=READING, needs_labels=True, raw=str(tmp_path / "raw"))
    raw = open_raw(tmp_path / "raw")
    assert (version, raw.name) == (f"ETag: {etag(PETS)}", "pets.tar.gz")
    assert raw.source == f"{web_server.url}/pets.tar.gz?..."
    printed = "".join(capsys.readouterr())
    assert "/pets.tar.gz?... is at" in printed and KEY not in printed
    assert files_with("torch2kubeflow/url", tmp_path) and not files_with(KEY, tmp_path)


def test_an_archive_without_a_name_is_called_by_its_address(web_server: WebServer, tmp_path: Path) -> None:
    web_server.files[f"/{QUERY}"] = PETS
    data = f"{web_server.url}/{QUERY}"
    download(data=data, version=version_of(data), recipe=READING, needs_labels=True, raw=str(tmp_path / "raw"))
    assert open_raw(tmp_path / "raw").name == f"{web_server.url}/?..."


@pytest.mark.parametrize("status", [403, 404, 503])
def test_an_error_does_not_tell_a_signature(web_server: WebServer, signed: str, status: int) -> None:
    web_server.script = [answer(status)] * 6
    with pytest.raises(UserError, match=re.escape(f"/pets.tar.gz?... answered {status}")) as refused:
        version_of(signed)
    assert KEY not in str(refused.value)


def test_an_untrusted_certificate_does_not_tell_one(tmp_path: Path) -> None:
    write_certificates(tmp_path, "127.0.0.1")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / CERTIFICATE, tmp_path / KEY_FILE)
    server = WebServer()
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    with serving(server), pytest.raises(UserError, match="has a certificate that is not trusted") as refused:
        version_of(f"https://127.0.0.1:{server.server_port}/pets.tar.gz{QUERY}")
    assert KEY not in str(refused.value)


def test_a_redirect_to_a_signed_address_does_not_tell_it(web_server: WebServer) -> None:
    web_server.script = [answer(302, Location=f"http://storage.example.org/pets.tar.gz{QUERY}")]
    with pytest.raises(
        UserError, match=r"leads to http://storage\.example\.org/pets\.tar\.gz\?\.\.\., which"
    ) as refused:
        version_of(f"{web_server.url}/pets.tar.gz")
    assert KEY not in str(refused.value)


def test_an_address_as_it_was_told_is_not_fetched(web_server: WebServer) -> None:
    with pytest.raises(UserError, match=r"pets\.zip\?\.\.\. was told without its query; give the whole address"):
        version_of(f"{web_server.url}/pets.zip?...")
    assert not web_server.asked


@pytest.mark.parametrize(
    ("parameter", "address", "remedy"),
    [
        ("data", "s3://AKIA:se/cr+et@bucket/pets", "SOURCE_AWS_ACCESS_KEY_ID and SOURCE_AWS_SECRET_ACCESS_KEY"),
        ("data", "https://me:se/cr+et@example.org/pets.zip", "an address that needs no login"),
        ("store", "s3://AKIA:se/cr+et@bucket/pets", "the keys into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("pretrained", "s3://AKIA:se/cr+et@bucket/model", "into the Secret that s3_secret names"),
        ("labels", "ftp://AKIA:se/cr+et@host/a.csv", "leave it out"),
    ],
)
def test_a_login_in_an_address_is_refused_unseen(parameter: str, address: str, remedy: str) -> None:
    given = {"data": "digits", parameter: address}
    inputs = {name: given.pop(name) for name in ("data", "store") if name in given}
    with pytest.raises(UserError, match=f"{parameter}=.*://... holds a login.*{remedy}") as refused:
        resolve(graph="training", options=given, **inputs)
    assert "cr+et" not in str(refused.value) and "AKIA" not in str(refused.value)


def test_a_login_may_be_in_netrc(web_server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web_server.files["/pets.tar.gz"] = PETS
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    version_of(f"{web_server.url}/pets.tar.gz")
    assert web_server.asked[0]["Authorization"].startswith("Basic ")
