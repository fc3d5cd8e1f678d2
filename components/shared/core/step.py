"""What every step does around its work: name its log lines, check its code, and report an error to the runner."""

import functools
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from components.shared.core import log
from components.shared.core.code_digest import code_digest, code_version
from components.shared.core.errors import UserError, as_user_error

P = ParamSpec("P")
R = TypeVar("R")


def step(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function a step of a pipeline.

    It raises UserError if the pipeline was compiled from other code of the step than this process has.
    """
    name = function.__name__.replace("_", "-")

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with log.named(name):
            try:
                _check_code(name, function.__module__)
                return function(*args, **kwargs)
            except Exception as error:
                if reported := as_user_error(error):
                    log.event("error", **reported.to_json())
                raise

    return run


def _check_code(name: str, module: str) -> None:
    """Refuse a mixture of images; only the code that the step can run counts, not a comment elsewhere."""
    version, digest = os.environ.get("CODE_VERSION"), os.environ.get("CODE_DIGEST")
    if not version or version == code_version() or digest == code_digest(module):
        return
    raise UserError(
        f"the code of step {name} is {code_digest(module)} here, and the pipeline was compiled from {digest}",
        "run the pipeline again, in a cluster after pushing images of the same code",
    )
