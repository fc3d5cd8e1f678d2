"""Keys of S3 stay in the environment: pytest tests/runner/test_secrets.py"""

import base64
import json
import os
import subprocess
import sys
import urllib.parse
from contextlib import suppress
from pathlib import Path

import pytest

from tests.sample_files import picture, tar_bytes
from tests.servers.s3_server import BUCKET, SECRET, S3Server
from tests.servers.web_server import WebServer

ROOT = Path(__file__).parents[2]
STORE = f"s3://{BUCKET}/runs"
TRAINED = ["epochs=1", "min_accuracy=0", "min_recall=0", f"store={STORE}"]
PETS = tar_bytes(
    {f"{kind}/{n}.png": picture(n + shift) for kind, shift in (("cat", 0), ("dog", 50)) for n in range(20)}
)
SIGNATURE = "5ca1ab1e-of-a-signed-address"
TOKEN = "no-server-knows-this-session-token-77"
pytestmark = pytest.mark.slow


def forms(secret: str) -> set[bytes]:
    """Return a secret in plain text, in base64 at any offset, in hexadecimal digits and URL-encoded."""
    plain = secret.encode()
    encoded = {base64.b64encode(b"x" * i + plain)[4 if i else 0 : -4] for i in range(3)}
    return {plain, *encoded, plain.hex().encode(), urllib.parse.quote(secret).encode()}


def holders(secret: str, folder: Path) -> list[str]:
    """Return the files in a folder, of any kind, that contain a secret."""
    wanted = forms(secret)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [str(path) for path in files if any(form in path.read_bytes() for form in wanted)]


def command_lines(folder: Path) -> set[bytes]:
    """Return the command lines of all processes with a folder's name in their environment."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # the process has ended, or is another user's
            if str(folder).encode() in (process / "environ").read_bytes():
                found.add((process / "cmdline").read_bytes())
    return found


def run_and_watch(folder: Path, *words: str, **environment: str) -> tuple[int, bytes]:
    """Run `python pipeline.py local`, and return its exit code and output; store the command lines seen meanwhile."""
    command = [sys.executable, "pipeline.py", "local", "--runs", str(folder / "runs"), *words]
    seen: set[bytes] = set()
    with open(folder / "printed", "wb") as printed:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment, "WATCHED": str(folder)},
            stdout=printed,
            stderr=subprocess.STDOUT,
        )
        while process.poll() is None:
            seen |= command_lines(folder)
            try:
                process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
    (folder / "command-lines").write_bytes(b"\n".join(sorted(seen)))
    assert len(seen) > 1, "the steps' processes are among them"
    return process.returncode, (folder / "printed").read_bytes()


def test_a_secret_is_found_in_every_form(tmp_path: Path) -> None:
    for number, form in enumerate(forms(SECRET)):
        (tmp_path / str(number)).write_bytes(b"before " + form + b" after")
    (tmp_path / "padded").write_bytes(base64.b64encode(f"key:{SECRET}!".encode()))
    (tmp_path / "clean").write_bytes(b"write-key")
    assert len(holders(SECRET, tmp_path)) == len(list(tmp_path.iterdir())) - 1


def test_a_run_leaves_its_secrets_nowhere(server: S3Server, web_server: WebServer, tmp_path: Path) -> None:
    web_server.files[f"/pets.tar.gz?sig={SIGNATURE}"] = PETS
    data = f"data={web_server.url}/pets.tar.gz?sig={SIGNATURE}"
    before = server.names()
    code, printed = run_and_watch(tmp_path, *TRAINED, "batch_size=8", data, **server.environment)
    assert code == 0, printed.decode()
    assert not holders(SECRET, tmp_path)
    assert holders(SIGNATURE, tmp_path) == [str(tmp_path / "command-lines")], "its user typed it there"
    stored = server.names() - before
    assert any("models/" in name for name in stored)
    assert f"runs/runs/{os.readlink(tmp_path / 'runs' / 'latest')}.json" in stored
    for name in stored:
        server.client.fget_object(BUCKET, name, str(tmp_path / "stored" / name))
    for secret in (SECRET, SIGNATURE):
        assert not holders(secret, tmp_path / "stored")


@pytest.mark.parametrize(
    ("environment", "words", "error"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong-secret-5cc1"}, ["data=s3://bucket/x"], "the secret key does not belong to"),
        ({"AWS_SESSION_TOKEN": TOKEN}, ["data=s3://bucket/x"], "the access key is not known"),
        ({"AWS_ENDPOINT_URL_S3": f"http://key:{TOKEN}@127.0.0.1:1"}, ["data=s3://bucket/x"], "a user or password"),
    ],
    ids=["wrong-key", "token", "in-the-address"],
)
def test_a_failing_run_shows_no_secret(
    server: S3Server, tmp_path: Path, environment: dict[str, str], words: list[str], error: str
) -> None:
    variables = {**server.environment, **environment}
    code, printed = run_and_watch(tmp_path, *words, f"store={STORE}", **variables)
    assert code == 2 and error in printed.decode()
    for secret in (variables["AWS_SECRET_ACCESS_KEY"], TOKEN):
        assert not holders(secret, tmp_path)


def test_the_embedded_servers_key_is_only_in_its_file(tmp_path: Path) -> None:
    code, printed = run_and_watch(tmp_path, "data=s3://no-such-bucket/x")
    assert code == 2 and "no-such-bucket" in printed.decode()
    keys = tmp_path / "runs" / "s3" / "keys.json"
    assert keys.stat().st_mode & 0o777 == 0o600
    (identity,) = json.loads(keys.read_bytes())["identities"]
    assert holders(identity["credentials"][0]["secretKey"], tmp_path) == [str(keys)]
