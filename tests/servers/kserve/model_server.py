"""A model server of the Open Inference Protocol on the loopback interface: a program of ONNX Runtime behind REST.

It follows the protocol's specification and the extensions of Triton: tensors as bytes, and the model's configuration.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tests.servers.json_handler import JsonHandler
from tests.servers.web_server import serving

DATATYPES = {"tensor(uint8)": ("UINT8", np.uint8), "tensor(float)": ("FP32", np.float32)}


class ModelServer(ThreadingHTTPServer):
    """Serves one model; a test may change what it answers."""

    daemon_threads = True

    def __init__(self, name: str, onnx: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name = name
        self.session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
        self.extensions = ["binary_tensor_data", "model_configuration"]
        self.parameters: dict[str, Any] = {}  # of the configuration
        self.bias = 0.0  # added to the first probability
        self.status = 200
        self.asked: list[str] = []
        self.was_binary = False

    def metadata(self) -> dict[str, Any]:
        """What the server says of its model."""
        tensors = {"inputs": self.session.get_inputs(), "outputs": self.session.get_outputs()}
        told = {
            kind: [
                {"name": one.name, "datatype": DATATYPES[one.type][0], "shape": [-1, *one.shape[1:]]} for one in ones
            ]
            for kind, ones in tensors.items()
        }
        return {"name": self.name, "versions": ["1"], "platform": "onnxruntime_onnx", **told}

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The probabilities of images."""
        (found,) = self.session.run(None, {self.session.get_inputs()[0].name: images})
        result = np.array(found)
        result[:, 0] += self.bias
        return result


class _Handler(JsonHandler):
    server: ModelServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        root = f"/v2/models/{self.server.name}"
        answers = {
            "/v2": {"name": "triton", "version": "2.34.0", "extensions": self.server.extensions},
            root: self.server.metadata(),
        }
        if "model_configuration" in self.server.extensions:
            answers[f"{root}/config"] = {"name": self.server.name, "parameters": self.server.parameters}
        if self.path in answers:
            return self.reply(self.server.status, answers[self.path])
        return self.reply(404, {"error": f"Request for unknown model: {self.path}"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != f"/v2/models/{self.server.name}/infer" or self.server.status != 200:
            return self.reply(400, {"error": "Request for unknown model"})
        length = self.headers.get("Inference-Header-Content-Length")
        head = json.loads(body[: int(length)] if length else body)
        (tensor,) = head["inputs"]
        if length:
            assert tensor["parameters"]["binary_data_size"] == len(body) - int(length)
            images = np.frombuffer(body[int(length) :], np.uint8)
        else:
            images = np.array(tensor["data"], np.uint8)
        self.server.was_binary = bool(length)
        found = self.server.predict(images.reshape(tensor["shape"]))
        (wanted,) = head["outputs"]
        output = {"name": wanted["name"], "datatype": "FP32", "shape": [*found.shape], "data": found.ravel().tolist()}
        return self.reply(200, {"model_name": self.server.name, "model_version": "1", "outputs": [output]})


@contextmanager
def model_server(name: str, onnx: Path) -> Iterator[ModelServer]:
    """Run a server for the block."""
    with serving(ModelServer(name, onnx)) as server:
        yield server
