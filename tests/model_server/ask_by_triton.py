"""Ask a model server with Triton's clients, in the environment .venv-clients, and print what they find.

.venv-clients/bin/python tests/model_server/ask_by_triton.py REST-PORT GRPC-PORT < images.npy
"""

import json
import sys
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

NAME = "shades"


def main() -> None:
    """Ask by REST and by gRPC."""
    images = np.load(BytesIO(sys.stdin.buffer.read()))
    clients = zip((tritonclient.http, tritonclient.grpc), sys.argv[1:], strict=True)
    found = {client.__name__: _ask(client, f"127.0.0.1:{port}", images) for client, port in clients}
    print(json.dumps(found))


def _ask(client: Any, address: str, images: Any) -> dict[str, Any]:
    with client.InferenceServerClient(address) as server:
        metadata = server.get_model_metadata(NAME)
        tensor = client.InferInput("images", list(images.shape), "UINT8")
        tensor.set_data_from_numpy(images)
        wanted = client.InferRequestedOutput("probabilities")
        answers = [server.infer(NAME, [tensor], outputs=outputs) for outputs in (None, [wanted])]
        flat = client.InferInput("images", [1, 256], "UINT8")
        flat.set_data_from_numpy(images[:1].reshape(1, 256))
        return {
            "ready": server.is_server_live() and server.is_server_ready() and server.is_model_ready(NAME),
            "input": metadata["inputs"][0]["name"] if isinstance(metadata, dict) else metadata.inputs[0].name,
            "probabilities": [answer.as_numpy("probabilities").tolist() for answer in answers],
            "refused": _refused(lambda: server.infer(NAME, [flat])),
        }


def _refused(ask: Callable[[], object]) -> str:
    try:
        ask()
    except InferenceServerException as error:
        return f"{error.status()}: {error.message()}"
    return ""


if __name__ == "__main__":
    main()
