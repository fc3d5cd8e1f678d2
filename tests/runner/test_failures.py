"""What the runner reads from the lines of a failed step: pytest tests/runner/test_failures.py"""

import json

import pytest

from components.shared.core.errors import CorruptDataError, TransientError, UserError
from components.shared.core.log import EVENT
from runner.failures import LAST_LINES, read_failure

TRACEBACK = ["Traceback (most recent call last):", "ValueError: broken"]


def event(error: UserError) -> str:
    return EVENT + json.dumps({"event": "error", **error.to_json()})


@pytest.mark.parametrize(
    ("error", "is_permanent"),
    [
        (UserError("gpus=lots is not accepted", "give a number"), True),
        (TransientError("the server answered 503", "try again later"), False),
        (CorruptDataError("a shard differs from its digest", "prepare it again"), False),
    ],
)
def test_a_reported_error_keeps_its_type(error: UserError, is_permanent: bool) -> None:
    failure = read_failure("train", [event(error), *TRACEBACK])
    assert (type(failure.reported), failure.error) == (type(error), str(error))
    assert (failure.is_permanent, failure.exit_code) == (is_permanent, 2)


def test_a_bug_is_its_last_line() -> None:
    failure = read_failure("train", ["line"] * 100 + TRACEBACK)
    assert (failure.reported, failure.error, failure.exit_code) == (None, "ValueError: broken", 1)
    assert len(failure.lines) == LAST_LINES and not failure.is_permanent


@pytest.mark.parametrize("line", [EVENT, EVENT + "{", EVENT + "[]", EVENT + "{}", EVENT + '{"event": "other"}'])
def test_a_line_that_is_no_error_event_is_no_report(line: str) -> None:
    assert read_failure("train", [line, *TRACEBACK]).reported is None


def test_without_lines_the_error_is_unknown() -> None:
    assert read_failure("train", []).error is None
