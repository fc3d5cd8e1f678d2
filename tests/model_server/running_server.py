"""A model server in a thread of the test, and plain clients for it."""

import asyncio
import http.client
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any, NamedTuple

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from components.shared.model_server.champion import Current
from components.shared.model_server.metrics import Metrics
from components.shared.model_server.model import Model
from components.shared.model_server.options import Options
from components.shared.model_server.program import open_folder
from components.shared.model_server.server import Address, running
from tests.conftest import ROOT
from tests.prediction.programs import write_package

NAME = "shades"
SHAPE = (1, 16, 16)
INFER = f"/v2/models/{NAME}/infer"


class Answer(NamedTuple):
    """What a server answers by HTTP."""

    status: int
    content: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.content)


def package_in(folder: Path) -> Current:
    """Return a small program, which tells light images from dark ones, in a new package in the folder."""
    write_package(folder, SHAPE)
    return Current(open_folder(folder, 1, NAME))


@contextmanager
def served(current: Current, **options: Any) -> Iterator[Address]:
    """Serve in a thread, at free ports, until the block ends."""
    found: Queue[Any] = Queue()

    async def serve() -> None:
        stop = asyncio.Event()
        model = Model(current, Options(port=0, grpc_port=0, threads=1, **options), Metrics())
        async with running(model) as address:
            found.put((address, asyncio.get_running_loop(), stop))
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    address, loop, stop = found.get(timeout=30)
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        assert not thread.is_alive()


def ask(address: Address, path: str, body: bytes | None = None, **headers: str) -> Answer:
    """Send one request by HTTP: POST if it has a body."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=30)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET" if body is None else "POST", path, body, named)
        answer = connection.getresponse()
        return Answer(answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()})
    finally:
        connection.close()


def tensor(shape: Any = (1, *SHAPE), **changes: Any) -> dict[str, Any]:
    """Return the JSON of an input."""
    return {"name": "images", "datatype": "UINT8", "shape": list(shape), **changes}


def binary(images: NDArray[np.uint8], **changes: Any) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of a request with the images in bytes, and its answer too."""
    sent = {**tensor(images.shape), "parameters": {"binary_data_size": images.nbytes}, **changes}
    head = json.dumps({"inputs": [sent], "parameters": {"binary_data_output": True}}).encode()
    return head + images.tobytes(), {"Inference_Header_Content_Length": str(len(head))}


def head(answer: Answer) -> Any:
    """Return the JSON of a binary answer."""
    return json.loads(answer.content[: int(answer.headers["inference-header-content-length"])])


def floats(answer: Answer) -> NDArray[np.float32]:
    """Return the probabilities of a binary answer."""
    length, (output,) = int(answer.headers["inference-header-content-length"]), head(answer)["outputs"]
    return np.frombuffer(answer.content, np.float32, offset=length).reshape(output["shape"])


@contextmanager
def stub(address: Address) -> Iterator[Any]:
    """Yield gRPC's own client."""
    with grpc.insecure_channel(f"{address.host}:{address.grpc_port}") as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def message(images: NDArray[np.uint8], **changes: Any) -> Any:
    """Return the message of a request by gRPC, some fields of it changed."""
    given = service_pb2.ModelInferRequest.InferInputTensor(name="images", datatype="UINT8", shape=images.shape)
    fields = {"model_name": NAME, "inputs": [given], "raw_input_contents": [images.tobytes()]}
    return service_pb2.ModelInferRequest(**{**fields, **changes})


class Running(NamedTuple):
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    address: Address
    lines: list[str]


@contextmanager
def server_process(*words: str) -> Iterator[Running]:
    """Serve by a command, whose lines go to stderr; kill it if the block has not ended it."""
    command = [sys.executable, *words, "--port", "0", "--grpc-port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines: list[str] = []
    try:
        assert process.stdout
        while not lines or "gRPC" not in lines[-1]:
            lines.append(process.stdout.readline())
            assert lines[-1], lines
        ports = re.findall(r"127\.0\.0\.1:(\d+)", "".join(lines))
        yield Running(process, Address("127.0.0.1", *map(int, ports)), lines)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
