"""Ask a model server for bench/serving.py, with Triton's client in the environment .venv-clients; print seconds.

.venv-clients/bin/python bench/serving_client.py rest|grpc PORT NAME SHAPE REQUESTS
"""

import json
import sys
from time import perf_counter
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http

CLIENTS = {"rest": tritonclient.http, "grpc": tritonclient.grpc}
WARM_UP = 2  # requests that are not counted


def main() -> None:
    """Warm up, wait for a line, and print the seconds of each request, and of all."""
    protocol, port, name, shape, requests = sys.argv[1:]
    images = np.random.default_rng(0).integers(0, 256, json.loads(shape), np.uint8)
    client = CLIENTS[protocol]
    with client.InferenceServerClient(f"127.0.0.1:{port}") as server:
        for _ in range(WARM_UP):
            _ask(client, server, name, images)
        print("ready", flush=True)
        sys.stdin.readline()
        started = perf_counter()
        seconds = [_ask(client, server, name, images) for _ in range(int(requests))]
        print(json.dumps({"seconds": seconds, "all": perf_counter() - started}))


def _ask(client: Any, server: Any, name: str, images: Any) -> float:
    """Return the seconds from the images to the probabilities."""
    started = perf_counter()
    tensor = client.InferInput("images", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images)
    answer = server.infer(name, [tensor], outputs=[client.InferRequestedOutput("probabilities")])
    assert len(answer.as_numpy("probabilities")) == len(images)
    return perf_counter() - started


if __name__ == "__main__":
    main()
