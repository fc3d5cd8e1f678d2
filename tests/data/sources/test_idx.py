"""IDX files are read as they were written, and damaged ones are reported, never misread."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.shared.core.errors import UserError
from components.shared.data.sources.idx import open_idx, write_idx

IMAGES = np.arange(5 * 3 * 4, dtype=np.uint8).reshape(5, 3, 4)
NAMES = ("images", "images.gz")
QUICK = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(path: Path, size: int = 2) -> np.ndarray:
    return np.concatenate(list(open_idx(path, 3).rows(size)))


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def header(*shape: int, magic: int = 0x803) -> bytes:
    return struct.pack(f">I{len(shape)}I", magic, *shape)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_rows_come_back_as_written(tmp_path: Path, name: str, size: int) -> None:
    write_idx(tmp_path / name, IMAGES)
    assert open_idx(tmp_path / name, 3).shape == (5, 3, 4)
    np.testing.assert_array_equal(read(tmp_path / name, size), IMAGES)


@QUICK
@given(shape=st.lists(st.integers(1, 6), min_size=1, max_size=4), size=st.integers(1, 7), seed=st.integers(0, 99))
def test_any_shape_comes_back(tmp_path: Path, shape: list[int], size: int, seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    write_idx(tmp_path / "a", array)
    np.testing.assert_array_equal(np.concatenate(list(open_idx(tmp_path / "a", len(shape)).rows(size))), array)


def test_the_bytes_follow_the_format(tmp_path: Path) -> None:
    write_idx(tmp_path / "a", np.array([7, 2], np.uint8))
    assert (tmp_path / "a").read_bytes() == bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 2])


def test_gzipped_files_are_reproducible(tmp_path: Path) -> None:
    for name in ("a.gz", "b.gz"):
        write_idx(tmp_path / name, IMAGES)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "magic number 0x, not 0x00000803"),
        (b"\0\0\x08", "magic number 0x000008, not 0x00000803"),
        (header(60, magic=0x801) + bytes(60), "magic number 0x00000801, not 0x00000803"),
        (header(5, 3, 4, magic=0xD03) + IMAGES.tobytes(), "magic number 0x00000d03"),
        (header(5, 3), "truncated in its header"),
        (header(0, 3, 4), "0 x 3 x 4 values"),
        (header(1, 2**31, 2**31), "1 x 2147483648 x 2147483648 values"),
        (header(5, 3, 4) + IMAGES.tobytes()[:-1], "truncated"),
        (header(5, 3, 4) + IMAGES.tobytes() + b"\0", "truncated or not IDX|longer than its header"),
        (header(2**32 - 1, 8192, 8192) + IMAGES.tobytes(), "truncated"),
    ],
)
def test_a_damaged_file_is_reported(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(written(tmp_path / name, content), 1000)


def test_broken_gzip_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    write_idx(path, np.random.default_rng(0).integers(0, 256, (50, 30, 40), np.uint8))
    good = path.read_bytes()
    for broken in (b"\0\0\x08\x03", good[:5], good[:-1], good[: len(good) // 2], good[:-8] + bytes(8)):
        path.write_bytes(broken)
        with pytest.raises(UserError, match="is not a complete gzip file"):
            read(path)


@pytest.mark.slow
@QUICK
@given(
    name=st.sampled_from(NAMES),
    cut=st.integers(0, 100),
    flips=st.lists(st.tuples(st.integers(0, 100), st.integers(1, 255)), max_size=3),
)
def test_a_mutated_file_is_read_correctly_or_refused(
    tmp_path: Path, name: str, cut: int, flips: list[tuple[int, int]]
) -> None:
    write_idx(tmp_path / name, IMAGES)
    content = bytearray((tmp_path / name).read_bytes())
    for where, mask in flips:
        content[where % len(content)] ^= mask
    (tmp_path / name).write_bytes(content[: len(content) - cut] if cut else content)
    try:
        rows = read(tmp_path / name)
    except UserError:
        return
    assert rows.size == IMAGES.size and not cut
    if name.endswith(".gz"):  # its checksum finds what the values cannot show
        np.testing.assert_array_equal(rows, IMAGES)
