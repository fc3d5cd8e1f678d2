"""Tensors of the protocol: what a request sends becomes images, or is refused."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from components.shared.data.dataset import Images
from components.shared.evaluation.exported_model import Tensor
from components.shared.model_server.program import Served
from components.shared.registry.triton import DATATYPES


class Refused(Exception):
    """A request that is wrong; `status` is that of HTTP."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def check_asked(program: Served, name: str, version: str) -> None:
    """Raise Refused unless a request's model and version are those that serve; an empty version is any."""
    if name != program.name:
        raise Refused(f"there is no model {_short(name)}; {program.name} is served", 404)
    if version and version != program.version:
        raise Refused(f"version {_short(version)} of {name} is not served; version {program.version} is", 404)


def check_outputs(program: Served, names: Sequence[object]) -> None:
    """Raise Refused unless the outputs that are asked for are the model's; none are all."""
    wanted = program.package.output.name
    for name in names:
        if name != wanted:
            raise Refused(f"the model has no output {_short(name)}; it has {wanted}")
    if len(names) > 1:
        raise Refused(f"the output {wanted} is asked for {len(names)} times")


def check_input(program: Served, name: object, datatype: object, shape: object) -> list[int]:
    """Return the shape of an input tensor. Raises Refused if it is not that of images as the model takes them."""
    tensor, sizes = program.package.input, program.sizes
    if name != tensor.name:
        raise Refused(f"the model has no input {_short(name)}; it has {tensor.name}")
    if datatype != DATATYPES[tensor.dtype]:
        raise Refused(f"the input {name} is {DATATYPES[tensor.dtype]}, not {_short(datatype)}")
    numbers = shape if isinstance(shape, list) else []
    if not numbers or any(type(number) is not int for number in numbers) or numbers[1:] != sizes or numbers[0] < 1:
        raise Refused(f"the shape of {name} is [N, {', '.join(map(str, sizes))}] with N >= 1, not {_short(shape)}")
    return numbers


def images_of_bytes(content: bytes | bytearray | memoryview, shape: list[int]) -> Images:
    """Return the images in the bytes of a tensor. Raises Refused if there are not as many as the shape says."""
    _check_count(len(content), "bytes", shape)
    return np.frombuffer(content, np.uint8).reshape(shape)


def images_of_numbers(data: Any, shape: list[int]) -> Images:
    """Return the images in a list of numbers, flat or nested. Raises Refused if it has other than the shape says."""
    try:
        numbers = np.asarray(data)
    except (ValueError, OverflowError):  # lists of different lengths
        raise Refused("the data are no regular list of numbers") from None
    if numbers.dtype.kind not in "iu":
        raise Refused("the data of UINT8 are whole numbers from 0 to 255")
    _check_count(numbers.size, "numbers", shape)
    if numbers.min() < 0 or numbers.max() > 255:
        raise Refused(f"the data of UINT8 are from 0 to 255, not {numbers.min()} to {numbers.max()}")
    return numbers.astype(np.uint8).reshape(shape)


def described(tensor: Tensor) -> dict[str, Any]:
    """Return what the metadata say of an input or output."""
    return {"name": tensor.name, "datatype": DATATYPES[tensor.dtype], "shape": [-1, *tensor.sizes]}


def _check_count(found: int, what: str, shape: list[int]) -> None:
    wanted = 1
    for size in shape:
        wanted *= size
    if found != wanted:
        raise Refused(f"a tensor of the shape {_short(shape)} has {wanted:,} {what}, and {found:,} were sent")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
