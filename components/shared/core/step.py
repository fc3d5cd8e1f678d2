"""What every step does around its work: name its log lines, check its code, and report an error to the runner."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from components.shared.core import log
from components.shared.core.code_digest import check_code
from components.shared.core.errors import as_user_error

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
                check_code(name, function.__module__)
                return function(*args, **kwargs)
            except Exception as error:
                if reported := as_user_error(error):
                    log.event("error", **reported.to_json())
                raise

    return run
