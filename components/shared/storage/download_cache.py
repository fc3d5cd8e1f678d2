"""Files kept by content, so that nothing is downloaded twice."""

import os
from pathlib import Path

from components.shared.core.errors import UserError
from components.shared.core.files import sha256_file


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/torch2kubeflow`, by default in `~/.cache` (XDG Base Directory Specification), made if need be.

    UserError where it cannot be made, as in a pod without a home.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torch2kubeflow"
    try:
        (folder / "sha256").mkdir(parents=True, exist_ok=True)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise UserError(
            f"{folder} cannot be made ({error.strerror}); set XDG_CACHE_HOME to a folder of yours"
        ) from None
    return folder


def place(sha256: str) -> Path:
    """Where the file of that content is kept, whether or not it is there."""
    return cache_folder() / "sha256" / sha256


def cached(sha256: str) -> Path | None:
    """The cached file of that content; a damaged one is removed and not found."""
    path = place(sha256)
    if not path.is_file():
        return None
    if sha256_file(path) != sha256:
        path.unlink()
        return None
    return path
