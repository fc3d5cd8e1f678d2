"""Ask a model server with KServe's clients, in the environment .venv-clients, and print what they find.

.venv-clients/bin/python tests/model_server/ask_by_kserve.py REST-PORT GRPC-PORT < images.npy

No process can have both Triton's messages and KServe's, which have the same names.
"""

import asyncio
import json
import sys
from io import BytesIO
from typing import Any

import grpc
import httpx
import numpy as np
from kserve import InferInput, InferRequest
from kserve.inference_client import InferenceGRPCClient, InferenceRESTClient, RESTConfig

NAME = "shades"


async def main() -> None:
    """Ask by REST and by gRPC."""
    rest, rpc = sys.argv[1:]
    images = np.load(BytesIO(sys.stdin.buffer.read()))
    found = {"REST": await _by_rest(f"http://127.0.0.1:{rest}", images), "gRPC": await _by_grpc(rpc, images)}
    print(json.dumps(found))


def _request(images: Any, is_binary: bool = True) -> Any:
    tensor = InferInput("images", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images, binary_data=is_binary)
    return InferRequest(model_name=NAME, infer_inputs=[tensor])


async def _by_rest(url: str, images: Any) -> dict[str, Any]:
    server = InferenceRESTClient(RESTConfig(protocol="v2"))
    ready = [
        await server.is_server_live(url),
        await server.is_server_ready(url),
        await server.is_model_ready(url, NAME),
    ]
    answers = [await server.infer(url, _request(images, is_binary), NAME) for is_binary in (True, False)]
    refused = ""
    try:
        await server.infer(url, _request(images[:, :, :8]), NAME)
    except httpx.HTTPStatusError as error:
        refused = f"{error.response.status_code}: {error.response.text}"
    await server.close()
    return {"ready": all(ready), "probabilities": [*map(_probabilities, answers)], "refused": refused}


async def _by_grpc(port: str, images: Any) -> dict[str, Any]:
    server = InferenceGRPCClient(f"127.0.0.1:{port}")
    ready = [await server.is_server_live(), await server.is_server_ready(), await server.is_model_ready(NAME)]
    answers = [await server.infer(_request(images, is_binary)) for is_binary in (True, False)]
    refused = ""
    try:
        await server.infer(_request(images[:, :, :8]))
    except grpc.RpcError as error:
        refused = f"{error.code()}: {error.details()}"
    await server.close()
    return {"ready": all(ready), "probabilities": [*map(_probabilities, answers)], "refused": refused}


def _probabilities(answer: Any) -> Any:
    return answer.outputs[0].as_numpy().tolist()


if __name__ == "__main__":
    asyncio.run(main())
