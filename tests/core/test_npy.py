"""NumPy files whose shape and dtype are known beforehand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from components.shared.core.errors import UserError
from components.shared.core.npy import npy_bytes, npy_header, parse_npy, read_npy, write_npy

ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_an_array_that_numpy_wrote_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ARRAY)
    assert (read_npy(tmp_path / "a.npy", (2, 3), np.float32) == ARRAY).all()
    assert (tmp_path / "a.npy").stat().st_size == npy_bytes((2, 3), np.float32)


def test_numpy_reads_an_array_with_our_header(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(npy_header((2, 3), np.float32) + ARRAY.tobytes())
    assert (np.load(tmp_path / "a.npy") == ARRAY).all()


@pytest.mark.parametrize("shape, dtype", [((3, 2), np.float32), ((6,), np.float32), ((2, 3), np.int32)])
def test_an_array_of_another_shape_or_type_is_refused(
    tmp_path: Path, shape: tuple[int, ...], dtype: type[np.generic]
) -> None:
    np.save(tmp_path / "a.npy", ARRAY)
    with pytest.raises(UserError, match=r"a\.npy is not a NumPy array of shape .*; create it again"):
        read_npy(tmp_path / "a.npy", shape, dtype)


def test_a_file_of_another_size_or_no_file_is_refused(tmp_path: Path) -> None:
    content = npy_header((2, 3), np.float32) + ARRAY.tobytes()
    assert parse_npy(content[:-1], (2, 3), np.float32) is None
    assert parse_npy(content + b"0", (2, 3), np.float32) is None
    with pytest.raises(UserError, match="is not a NumPy array"):
        read_npy(tmp_path / "none.npy", (2, 3), np.float32)


def test_an_array_is_written_as_numpy_writes_it(tmp_path: Path) -> None:
    arrays: list[NDArray[Any]] = [ARRAY, ARRAY[:0], ARRAY.astype(np.int64), ARRAY[:, ::2]]
    for number, array in enumerate(arrays):
        np.save(tmp_path / f"{number}.npy", array)
        write_npy(tmp_path / "ours.npy", array)
        assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / f"{number}.npy").read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_is_an_error_that_says_so() -> None:
    with pytest.raises(OSError, match="No space left on device"):
        write_npy(Path("/dev/full"), ARRAY)
