"""Verb `serve` and the server of the image: pytest tests/runner/serving/test_serve.py"""

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import jsonschema
import numpy as np
import pytest

from components.shared.core.errors import UserError
from components.shared.model_server.champion import Current
from components.shared.model_server.program import open_folder
from components.shared.model_server.server import Address
from components.shared.storage.client import Store
from runner.serving import serve
from tests.conftest import ROOT
from tests.model_server.running_server import SHAPE, ask, binary, head, served, server_process
from tests.prediction.programs import register_package, write_package
from tests.repository.documents import blocks, read
from tests.runner.verbs import run_verb

CLIENTS = ROOT / ".venv-clients" / "bin" / "python"
IMAGES = np.zeros((1, *SHAPE), np.uint8)
pytestmark = pytest.mark.slow


@pytest.fixture
def package(tmp_path: Path) -> Path:
    write_package(tmp_path / "package", SHAPE)
    return tmp_path / "package"


def test_sigterm_answers_what_is_in_flight(package: Path) -> None:
    body, headers = binary(IMAGES)
    length = headers["Inference_Header_Content_Length"]
    start = f"POST /v2/models/model/infer HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
    sent = f"{start}Inference-Header-Content-Length: {length}\r\n\r\n".encode() + body
    with server_process("pipeline.py", "serve", "--model", str(package), "--json") as (process, address, lines):
        assert re.fullmatch(r"model, version \w{12} is served \(Ctrl-C ends it\)\n", lines[0])
        with socket.create_connection((address.host, address.port), timeout=30) as connection:
            connection.sendall(sent[:-100])
            assert ask(address, "/v2/health/ready").status == 200
            process.send_signal(signal.SIGTERM)
            _until_refused(address)
            connection.sendall(sent[-100:])
            answer = b"".join(iter(lambda: connection.recv(65_536), b""))
        assert answer.startswith(b"HTTP/1.1 200 ") and b'"model_name": "model"' in answer
        rest, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert rest.startswith("[serve] stops; requests in flight are answered\n")
    document = json.loads(rest.partition("\n")[2])
    jsonschema.validate(document, json.loads(read("docs/schemas/serve.json")))
    assert (document["name"], document["port"], document["grpc_port"]) == ("model", address.port, address.grpc_port)


def _until_refused(address: Address) -> None:
    end = monotonic() + 20
    while True:
        try:
            socket.create_connection((address.host, address.port), timeout=5).close()
        except ConnectionRefusedError:
            return
        assert monotonic() < end
        sleep(0.05)


def test_the_program_of_the_image_serves_a_package(package: Path) -> None:
    words = ("-m", "components.entrypoints.serve_model", "--package", str(package), "--model", "shades")
    body, headers = binary(IMAGES)
    with server_process(*words) as (process, address, _):
        assert head(ask(address, "/v2/models/shades/infer", body, **headers))["model_name"] == "shades"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


@pytest.mark.usefixtures("s3_variables")
def test_models_of_a_store_are_served(package: Path, store: Store, uri: str) -> None:
    with pytest.raises(UserError, match="has no models yet; run the pipeline"):
        run_verb(serve, "--store", uri)
    register_package(store, package, "mnist")
    body, headers = binary(IMAGES)
    for words in (
        ("pipeline.py", "serve", "--store", uri),
        ("-m", "components.entrypoints.serve_model", "--store", uri, "--model", "mnist/1"),
    ):
        with server_process(*words) as (_, address, lines):
            assert words[0] == "-m" or "mnist, version 1, and each new champion, is served" in lines[0]
            found = head(ask(address, "/v2/models/mnist/infer", body, **headers))
            assert (found["model_name"], found["model_version"]) == ("mnist", "1")
    with pytest.raises(UserError, match="mnist has no version 7"):
        run_verb(serve, "--store", uri, "--model", "mnist/7")


def test_what_cannot_be_served_is_refused(package: Path) -> None:
    with pytest.raises(UserError, match=r"--model \.\./package is neither a folder with package.json nor a model"):
        run_verb(serve, "--model", "../package")
    with pytest.raises(UserError, match="--host localhost is not an IP address; give an address such as"):
        run_verb(serve, "--model", str(package), "--host", "localhost", "--port", "0", "--grpc-port", "0")
    with pytest.raises(SystemExit):
        run_verb(serve, "--model", str(package), "--max-request", "0")


@pytest.fixture
def mnist(tmp_path: Path) -> Iterator[Address]:
    """A server of a model as docs/serving.md names it."""
    write_package(tmp_path / "package", (1, 32, 32))
    with served(Current(open_folder(tmp_path / "package", 1, "mnist"))) as address:
        yield address


def _examples(language: str, address: Address) -> list[str]:
    return [
        code.replace("127.0.0.1:8029", f"127.0.0.1:{address.port}")
        for code in blocks(read("docs/serving.md"), language)
    ]


def test_the_documented_curl_commands_work(mnist: Address, tmp_path: Path) -> None:
    (script,) = _examples("sh", mnist)
    done = subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert '{"ready": true}{"name": "mnist"' in done.stdout and '"shape": [1, 2], "data": [0.99' in done.stdout
    assert 'serve_requests_total{code="200",protocol="rest"} 1.0' in done.stdout


@pytest.mark.skipif(not CLIENTS.exists(), reason="the clients have an environment of their own: `make test` makes it")
def test_the_documented_client_works(mnist: Address) -> None:
    (code,) = _examples("python", mnist)
    done = subprocess.run([CLIENTS, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr
    assert re.match(r"\w{12} \[\[9\.99\d+e-01 ", done.stdout)
