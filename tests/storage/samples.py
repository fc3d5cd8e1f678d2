"""Contents to transfer, and helpers that the tests of the store share."""

import random
from pathlib import Path

import pytest

from components.shared.core.errors import UserError
from components.shared.storage.client import PART_BYTES, open_store
from tests.servers.s3_server import KEY, SECRET

SMALL = random.Random(0).randbytes(100_000)
TWO_PARTS = random.Random(2).randbytes(PART_BYTES + 12_345)
LARGE = random.Random(1).randbytes(2 * PART_BYTES + 12_345)  # three parts
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}


def write(path: Path, content: bytes) -> Path:
    """Write a file and return its path."""
    path.write_bytes(content)
    return path


def error_line(uri: str, environment: dict[str, str], prefix: str = "") -> str:
    """Return the error of the first call that finds a mistake in the variables: one line without the secret."""
    with pytest.raises(UserError) as error:
        open_store(uri, environment, prefix).get_bytes("a")
    text = str(error.value)
    assert "\n" not in text
    assert SECRET not in text
    return text
