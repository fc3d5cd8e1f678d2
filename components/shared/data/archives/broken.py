"""What the readers of archives raise for a damaged one, turned into one line."""

import errno
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backports import zstd

from components.shared.core.errors import UserError

AGAIN = "replace it with an intact copy"
BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zstd.ZstdError,
    NotImplementedError,
    RecursionError,
    UnicodeDecodeError,
)


@contextmanager
def broken_is_an_error(path: object) -> Iterator[None]:
    """Raise UserError for what the block raises because the archive is damaged."""
    try:
        yield
    except BROKEN as error:
        raise UserError(f"{path} cannot be read as an archive ({error})", AGAIN) from None
    except OSError as error:  # without a number from bz2 and gzip, EINVAL if a zip's offsets lead before its start
        if error.errno not in (None, errno.EINVAL):
            raise
        raise UserError(f"{path} cannot be read as an archive ({error})", AGAIN) from None


@contextmanager
def source_named(copy: Path, source: str) -> Iterator[None]:
    """Let errors about a copy of an archive name its source, which is what people know."""
    try:
        yield
    except UserError as error:
        raise type(error)(error.message.replace(str(copy), source), error.remedy) from None
