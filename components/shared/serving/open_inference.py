"""A model that is served by the Open Inference Protocol (the v2 protocol of KServe and Triton), by REST.

Pixels are sent as bytes where the server says that it takes them so, and as JSON elsewhere.
"""

import json
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from typing import Any

import numpy as np
from numpy.typing import NDArray
from urllib3.exceptions import HTTPError

from components.shared.core.errors import UserError
from components.shared.evaluation.exported_model import Tensor
from components.shared.registry import triton

BINARY = "binary_tensor_data"  # the extension's name
LENGTH_OF_HEADER = "Inference-Header-Content-Length"
MAX_BYTES = 2**26  # of an answer

Connect = Callable[[], HTTPConnection]


class NotServed(UserError):
    """The model server does not answer, or not as the protocol says."""


class ServedModel:
    """One model of a server, asked through connections of `connect`. Each method raises NotServed."""

    def __init__(self, connect: Connect, name: str) -> None:
        self._connect, self._name = connect, name

    def metadata(self) -> dict[str, Any]:
        """Return what the server says of the model: its versions, inputs and outputs."""
        return self._ask("GET", f"/v2/models/{self._name}")

    def digest(self) -> str | None:
        """Return the digest of the package that the model's configuration names; None if the server tells none.

        Only servers with Triton's extension show their configuration.
        """
        try:
            parameters = self._ask("GET", f"/v2/models/{self._name}/config").get("parameters") or {}
            return str(parameters[triton.DIGEST]["string_value"])
        except (NotServed, KeyError, TypeError):
            return None

    def predict(self, images: NDArray[np.uint8], inputs: Tensor, outputs: Tensor) -> NDArray[np.float32]:
        """Return the probabilities of images (N x C x H x W), as the model's output (N x classes)."""
        is_binary = BINARY in self._ask("GET", "/v2").get("extensions", [])
        tensor: dict[str, Any] = {
            "name": inputs.name,
            "datatype": triton.DATATYPES[inputs.dtype],
            "shape": list(images.shape),
        }
        if is_binary:
            tensor["parameters"] = {"binary_data_size": images.nbytes}
        else:
            tensor["data"] = images.ravel().tolist()
        head = json.dumps({"inputs": [tensor], "outputs": [{"name": outputs.name}]}).encode()
        headers = {"Content-Type": "application/json"}
        if is_binary:
            headers = {"Content-Type": "application/octet-stream", LENGTH_OF_HEADER: str(len(head))}
        body = head + images.tobytes() if is_binary else head
        answer = self._ask("POST", f"/v2/models/{self._name}/infer", body, headers)
        return self._output(answer, outputs, len(images))

    def _output(self, answer: dict[str, Any], outputs: Tensor, images: int) -> NDArray[np.float32]:
        try:
            (found,) = [one for one in answer["outputs"] if one["name"] == outputs.name]
            array = np.array(found["data"], np.float32).reshape(images, *outputs.sizes)
            assert found["shape"] == [*array.shape]
        except (KeyError, TypeError, ValueError, AssertionError):
            raise NotServed(
                f"the model {self._name} does not answer with {outputs.name} of {images} x {outputs.sizes}",
                "see the log of its pod",
            ) from None
        return array

    def _ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Return the JSON object that the server answers."""
        try:
            connection = self._connect()
            try:
                connection.request(method, path, body, headers or {})
                answer = connection.getresponse()
                content, status = answer.read(MAX_BYTES + 1), answer.status
            finally:
                connection.close()
        except (OSError, HTTPException, HTTPError) as error:
            raise NotServed(f"the model server does not answer {path} ({error})", "see the log of its pod") from None
        return self._parsed(path, status, content)

    def _parsed(self, path: str, status: int, content: bytes) -> dict[str, Any]:
        try:
            found = json.loads(content) if len(content) <= MAX_BYTES else None
        except ValueError:
            found = None
        if status != 200 or not isinstance(found, dict):
            text = content[:200].decode(errors="replace") or "no document"
            text = str(found["error"]) if isinstance(found, dict) and "error" in found else text
            raise NotServed(f"the model server answers {status} to {path}: {text}", "see the log of its pod")
        return found
