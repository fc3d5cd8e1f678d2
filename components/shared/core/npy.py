"""NumPy's `.npy` format, version 1.0, little endian, for files whose shape and dtype are known beforehand.

A header is compared, never parsed, so that a forged file cannot reach NumPy's own reader.
"""

import math
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.shared.core.errors import UserError

Shape = tuple[int, ...]


def npy_header(shape: Shape, dtype: type[np.generic]) -> bytes:
    """Return the header of a file with an array in C order."""
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype).newbyteorder("<"))
    file = BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()


def npy_bytes(shape: Shape, dtype: type[np.generic]) -> int:
    """Return the size in bytes of a file with an array."""
    return len(npy_header(shape, dtype)) + math.prod(shape) * np.dtype(dtype).itemsize


def write_npy(path: Path, array: NDArray[Any]) -> None:
    """Write an array, as np.save does, but so that a full disk is an OSError which says so."""
    with open(path, "wb") as file:
        file.write(npy_header(array.shape, array.dtype.type))
        file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def parse_npy(content: bytes, shape: Shape, dtype: type[np.generic]) -> NDArray[Any] | None:
    """Return the array in a file's bytes, read-only; None if they are not an array of that shape and dtype."""
    header = npy_header(shape, dtype)
    if not content.startswith(header) or len(content) != npy_bytes(shape, dtype):
        return None
    return np.frombuffer(content, np.dtype(dtype).newbyteorder("<"), offset=len(header)).reshape(shape)


def read_npy(path: Path, shape: Shape, dtype: type[np.generic]) -> NDArray[Any]:
    """Read the array in a file. Raises UserError if it is not an array of that shape and dtype."""
    is_whole = path.is_file() and path.stat().st_size == npy_bytes(shape, dtype)
    array = parse_npy(path.read_bytes(), shape, dtype) if is_whole else None
    if array is None:
        raise UserError(f"{path} is not a NumPy array of shape {shape} and type {np.dtype(dtype)}", "create it again")
    return array
