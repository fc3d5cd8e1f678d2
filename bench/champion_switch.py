"""Whether a switch of the champion loses requests: `python bench/champion_switch.py` (needs `weed`, as the tests do).

LeNet-5 is served from a store (`pipeline.py serve`), and 8 clients ask it, half by REST with a connection for each
request and half by gRPC, while another version becomes the champion. Each answer names a version, and its probabilities
are compared with those of both. A request without an answer is lost, and an answer is mixed if its rows are not all of
the version that it names.
"""

import argparse
import http.client
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
from measure import ROOT, median, write_result
from packages import SHAPES, write_package

from components.shared.evaluation.inference import load_onnx
from components.shared.model_server.server import Address
from components.shared.registry.registry import RegisteredModel
from components.shared.storage.client import open_store
from tests.model_server.running_server import INFER, NAME, ask, binary, floats, head, message, server_process, stub
from tests.prediction.programs import register_package
from tests.servers.s3_server import BUCKET, S3Server

CLIENTS, ROWS, URI = 4, 3, f"s3://{BUCKET}/bench"  # clients of each protocol, images of a request
SAME = 1e-4  # largest difference of probabilities, which depend on what they are predicted with


class Answer(NamedTuple):
    """What a request got: the version that answered it, or "lost" or "mixed"."""

    protocol: str
    outcome: str
    seconds: float
    at: float


def main() -> int:
    """Measure, print, and write `bench/results/champion_switch.json`; return 1 if a request was lost or mixed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    requests, load = parser.parse_args().requests, os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        server = S3Server(Path(scratch))
        server.start()
        try:
            server.client.make_bucket(BUCKET)
            os.environ |= server.environment
            promoted, answers = _across_a_switch(Path(scratch), requests)
        finally:
            server.kill()
    found = _summary(promoted, answers)
    print(found)
    print(write_result("champion_switch", {"load_average": load, **found}).relative_to(ROOT))
    return int(bool(found["lost"] or found["mixed"] or len(found["versions"]) < 2))


def _across_a_switch(scratch: Path, requests: int) -> tuple[float, list[Answer]]:
    """Return when the other version was promoted, and all answers."""
    images = np.random.default_rng(0).integers(0, 256, (ROWS, *SHAPES["lenet5"]), np.uint8)
    model, wanted = RegisteredModel(open_store(URI, os.environ), NAME), {}
    for number in (1, 2):
        write_package(scratch / str(number), "lenet5")
        wanted[str(number)] = load_onnx(scratch / str(number) / "model.onnx", 1)(images)
        register_package(model.store, scratch / str(number), NAME, wins=number == 1)
    assert np.abs(wanted["1"] - wanted["2"]).max(axis=1).min() > 10 * SAME, "the versions can be told apart"
    answers: list[Answer] = []
    words = ["serve", "--model", NAME, "--store", URI, "--poll", "1"]
    with server_process("pipeline.py", *words) as running, stub(running.address) as service:
        asks = {"rest": _by_rest(running.address, images), "grpc": _by_grpc(service, images)}
        share = requests // (CLIENTS * len(asks))
        clients = [
            threading.Thread(target=_client, args=(*one, share, wanted, answers))
            for one in asks.items()
            for _ in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        while len(answers) < requests // 4:
            time.sleep(0.01)
        model.promote(2)
        promoted = time.monotonic()
        for client in clients:
            client.join()
    return promoted, answers


Ask = Callable[[], tuple[str, Any]]  # the version and the probabilities of an answer


def _by_rest(address: Address, images: Any) -> Ask:
    body, headers = binary(images)

    def found() -> tuple[str, Any]:
        answer = ask(address, INFER, body, **headers)
        if answer.status != 200:
            raise OSError(answer.content)
        return head(answer)["model_version"], floats(answer)

    return found


def _by_grpc(service: Any, images: Any) -> Ask:
    request = message(images)

    def found() -> tuple[str, Any]:
        answer = service.ModelInfer(request, timeout=30)
        probabilities = np.frombuffer(answer.raw_output_contents[0], np.float32)
        return answer.model_version, probabilities.reshape(answer.outputs[0].shape)

    return found


def _client(protocol: str, ask_it: Ask, share: int, wanted: dict[str, Any], answers: list[Answer]) -> None:
    for _ in range(share):
        started = time.monotonic()
        try:
            version, probabilities = ask_it()
        except (OSError, http.client.HTTPException, grpc.RpcError) as error:
            print(f"lost by {protocol}: {error}", flush=True)
            outcome = "lost"
        else:
            is_whole = version in wanted and np.abs(probabilities - wanted[version]).max() < SAME
            outcome = version if is_whole else "mixed"
        now = time.monotonic()
        answers.append(Answer(protocol, outcome, now - started, now))


def _summary(promoted: float, answers: list[Answer]) -> dict[str, Any]:
    outcomes = Counter(answer.outcome for answer in answers)
    seconds = [answer.seconds for answer in answers]
    by_new = [answer.at for answer in answers if answer.outcome == "2"]
    return {
        "requests": len(answers),
        "lost": outcomes.pop("lost", 0),
        "mixed": outcomes.pop("mixed", 0),
        "versions": dict(outcomes),
        "protocols": dict(Counter(answer.protocol for answer in answers)),
        "median_ms": 1000 * median(seconds),
        "slowest_ms": 1000 * max(seconds),
        "seconds_from_promotion_to_first_answer": min(by_new) - promoted if by_new else None,
    }


if __name__ == "__main__":
    raise SystemExit(main())
