"""A load of thousands of requests, most of them wrong: each gets its own answer, and the server lives, in bounds."""

import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from components.shared.core.resources import resident_memory
from components.shared.model_server.server import Address
from tests.model_server.running_server import SHAPE, ask, binary, head, message, server_process, stub
from tests.prediction.programs import write_package

INFER = "/v2/models/model/infer"
THREADS, REQUESTS = 8, 300  # of each thread
HUGE = 100 * 2**20
MORE_BYTES = 300 * 2**20  # that the server may take at the end: what its allocator keeps, not what it was sent
IMAGES = np.random.default_rng(4).integers(0, 256, (4, *SHAPE), np.uint8)


def _right(address: Address) -> str:
    body, headers = binary(IMAGES[: random.randint(1, 4)])
    return str(ask(address, INFER, body, **headers).status)


def _wrong(address: Address) -> str:
    """Send a right request with some bytes of it changed, or cut out; a few such are still right."""
    body, headers = binary(IMAGES[:1])
    changed = bytearray(body)
    for _ in range(random.randint(1, 8)):
        changed[random.randrange(len(changed) - 256)] = random.randrange(256)
    return str(ask(address, INFER, bytes(changed[: random.randrange(1, len(changed))]), **headers).status)


def _wrong_shape(address: Address) -> str:
    images = IMAGES[:, :, : random.randint(1, 15)]
    body, headers = binary(np.ascontiguousarray(images))
    return str(ask(address, INFER, body, **headers).status)


def _other_type(address: Address) -> str:
    body, headers = binary(IMAGES, datatype=random.choice(("FP32", "BYTES", "", "INT8")))
    return str(ask(address, INFER, body, **headers).status)


def _huge(address: Address) -> str:
    """Announce 100 MB, and send them until the server has had enough."""
    connection = HTTPConnection(address.host, address.port, timeout=60)
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.request("POST", INFER, (bytes(2**20) for _ in range(100)), {"Content-Length": str(HUGE)})
    try:
        return str(connection.getresponse().status)
    finally:
        connection.close()


def _cut(address: Address) -> str:
    """Send half a request, and go."""
    with socket.create_connection((address.host, address.port), timeout=30) as connection:
        connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n".encode() + bytes(1000))
    return "gone"


def _noise(address: Address) -> str:
    """Send what is no HTTP."""
    with socket.create_connection((address.host, address.port), timeout=30) as connection:
        connection.sendall(random.randbytes(500) + b"\r\n\r\n")
        with suppress(ConnectionResetError):
            return connection.recv(12).removeprefix(b"HTTP/1.0 ").removeprefix(b"HTTP/1.1 ").decode() or "gone"
    return "gone"


def _by_grpc(address: Address) -> str:
    changes: dict[str, Any] = random.choice(
        (
            {"model_name": "model"},
            {"model_name": "other"},
            {"model_name": "model", "raw_input_contents": [b"a"]},
            {"model_name": "model", "inputs": []},
        )
    )
    with stub(address) as client:
        return _code(client, message(IMAGES, **changes))


def _huge_by_grpc(address: Address) -> str:
    with stub(address) as client:
        return _code(client, message(IMAGES, model_name="model", raw_input_contents=[bytes(HUGE)]))


def _code(client: Any, request: Any) -> str:
    try:
        client.ModelInfer(request, timeout=60)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


# How often, of a thousand, and what may be answered.
KINDS: dict[Callable[[Address], str], tuple[float, set[str]]] = {
    _right: (400, {"200"}),
    _wrong: (250, {"400"}),
    _wrong_shape: (80, {"400"}),
    _other_type: (80, {"400"}),
    _huge: (2, {"413"}),
    _cut: (60, {"gone"}),
    _noise: (40, {"400", "gone"}),
    _by_grpc: (80, {"OK", "NOT_FOUND", "INVALID_ARGUMENT"}),
    _huge_by_grpc: (2, {"RESOURCE_EXHAUSTED"}),
}


@pytest.mark.slow
def test_a_server_lives_through_thousands_of_wrong_requests(tmp_path: Path) -> None:
    write_package(tmp_path / "package", SHAPE)
    random.seed(0)
    answers: list[tuple[str, str]] = []
    with (
        server_process("pipeline.py", "serve", "--model", str(tmp_path / "package")) as (process, address, _),
        ExitStack() as slow,
    ):
        _right(address)
        before = _memory(process.pid)
        for _ in range(100):
            slow.enter_context(_slow(address))
        threads = [threading.Thread(target=_load, args=(address, answers, seed)) for seed in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        body, headers = binary(IMAGES)
        answer = ask(address, INFER, body, **headers)
        assert answer.status == 200 and head(answer)["outputs"][0]["shape"] == [4, 2]
        assert _memory(process.pid) < before + MORE_BYTES
    found = Counter(answers)
    assert sum(found.values()) == THREADS * REQUESTS
    allowed = {(kind.__name__, answer) for kind, (_, answers) in KINDS.items() for answer in answers}
    assert {*found} <= allowed, found
    assert {name for name, _ in found} == {kind.__name__ for kind in KINDS}


def _slow(address: Address) -> socket.socket:
    """Return a connection that has sent a part of a request, and sends no more."""
    connection = socket.create_connection((address.host, address.port), timeout=30)
    connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n".encode() + bytes(50_000))
    return connection


def _load(address: Address, answers: list[tuple[str, str]], seed: int) -> None:
    for kind in _plan(seed):
        try:
            answer = kind(address)
        except Exception as error:  # of any client: it is told with the rest
            answer = repr(error)
        answers.append((kind.__name__, answer))


def _plan(seed: int) -> Iterator[Callable[[Address], str]]:
    """Yield what a thread sends: the first one each kind at least once."""
    first = [*KINDS] if seed == 0 else []
    yield from first
    yield from random.Random(seed).choices([*KINDS], [share for share, _ in KINDS.values()], k=REQUESTS - len(first))


def _memory(pid: int) -> int:
    return resident_memory(Path(f"/proc/{pid}/statm"))
