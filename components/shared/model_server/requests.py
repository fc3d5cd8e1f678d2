"""Inference by REST: the JSON of a request, with the bytes of its tensor after it or numbers in it, and the answer."""

import json
from typing import Any, NamedTuple

from components.shared.data.dataset import Images
from components.shared.evaluation.metrics import Probabilities
from components.shared.model_server.program import Served
from components.shared.model_server.tensors import (
    Refused,
    check_input,
    check_outputs,
    images_of_bytes,
    images_of_numbers,
)
from components.shared.registry.triton import DATATYPES

LENGTH_OF_HEADER = "Inference-Header-Content-Length"  # bytes of the JSON, if bytes of tensors follow it


class Request(NamedTuple):
    """An inference request: its id, its images (uint8, N x C x H x W), and whether the answer is in bytes."""

    id: str
    images: Images
    is_binary: bool


def parse_request(program: Served, body: bytearray, header: str | None) -> Request:
    """Return the request in a body, whose JSON ends where `header` says. Raises Refused if it is wrong."""
    end = _length(header, len(body))
    fields = _parsed(body[:end])
    name = fields.get("id", "")
    if not isinstance(name, str):
        raise Refused("the id is no text")
    binary = _parameters(fields, "the request").get("binary_data_output", False)
    inputs = fields.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Refused(f"inputs is a list with one tensor, {program.package.input.name}")
    return Request(
        name, _images(program, inputs[0], memoryview(body)[end:]), _wants_bytes(program, fields.get("outputs"), binary)
    )


def answer(program: Served, request: Request, probabilities: Probabilities) -> tuple[bytes, dict[str, str]]:
    """Return the body of an answer, and its headers."""
    output = program.package.output
    tensor: dict[str, Any] = {
        "name": output.name,
        "datatype": DATATYPES[output.dtype],
        "shape": list(probabilities.shape),
    }
    content = b""
    if request.is_binary:
        content = probabilities.tobytes()
        tensor["parameters"] = {"binary_data_size": len(content)}
    else:
        tensor["data"] = probabilities.ravel().tolist()
    fields = {"model_name": program.name, "model_version": program.version, "outputs": [tensor]}
    head = json.dumps({**fields, "id": request.id} if request.id else fields).encode()
    if not request.is_binary:
        return head, {"Content-Type": "application/json"}
    return head + content, {"Content-Type": "application/octet-stream", LENGTH_OF_HEADER: str(len(head))}


def _length(header: str | None, size: int) -> int:
    """Return the number of bytes of the JSON."""
    if header is None:
        return size
    if not (header.isascii() and header.isdecimal()) or len(header) > 12 or int(header) > size:
        raise Refused(f"{LENGTH_OF_HEADER} is {header[:20]}, and the body has {size:,} bytes")
    return int(header)


def _parsed(text: bytearray) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(f"the request is no JSON ({error})") from None
    if not isinstance(fields, dict):
        raise Refused("the request is no JSON object")
    return fields


def _parameters(fields: dict[str, Any], what: str) -> dict[str, Any]:
    found = fields.get("parameters") or {}
    if not isinstance(found, dict):
        raise Refused(f"the parameters of {what} are no JSON object")
    return found


def _images(program: Served, tensor: dict[str, Any], content: memoryview) -> Images:
    """Return the images of the input, whose bytes are `content`, or whose numbers are in its JSON."""
    shape = check_input(program, tensor.get("name"), tensor.get("datatype"), tensor.get("shape"))
    parameters = _parameters(tensor, "the input")
    if unknown := parameters.keys() - {"binary_data_size"}:
        raise Refused(f"the input has a parameter that is not known: {min(unknown)[:60]}")
    size = parameters.get("binary_data_size")
    if size is None:
        if "data" not in tensor:
            raise Refused("the input has neither data nor binary_data_size")
        if len(content):
            raise Refused(f"{len(content):,} bytes follow the JSON, and the input does not say so")
        return images_of_numbers(tensor["data"], shape)
    if "data" in tensor:
        raise Refused("the input has both data and binary_data_size")
    if type(size) is not int or size != len(content):
        raise Refused(f"binary_data_size is {str(size)[:20]}, and {len(content):,} bytes follow the JSON")
    return images_of_bytes(content, shape)


def _wants_bytes(program: Served, outputs: object, default: object) -> bool:
    """Return whether the output is wanted in bytes."""
    if outputs is None:
        outputs = []
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise Refused("outputs is a list of JSON objects")
    check_outputs(program, [output.get("name") for output in outputs])
    parameters = _parameters(outputs[0], "the output") if outputs else {}
    if unknown := parameters.keys() - {"binary_data"}:
        raise Refused(f"the output has a parameter that is not known: {min(unknown)[:60]}")
    wanted = parameters.get("binary_data", default)
    if type(wanted) is not bool:
        raise Refused("whether an output is wanted in bytes is true or false")
    return wanted
