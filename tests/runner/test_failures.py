"""What the runner reads from the lines of a failed step: pytest tests/runner/test_failures.py"""

import json
from collections.abc import Callable, Iterator
from importlib import import_module
from pkgutil import walk_packages

import pytest

import components
import runner
from components.shared.core.errors import TYPES, CorruptDataError, TransientError, UserError
from components.shared.core.log import EVENT
from components.shared.storage.errors import NoSuchObject, Unreadable
from runner.cli import main
from runner.cluster.rest import NotKfp
from runner.doctor.s3 import Unreachable
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


def kinds(kind: type[UserError] = UserError) -> Iterator[type[UserError]]:
    """Yield a class and all that extend it, however deep."""
    yield kind
    for extending in kind.__subclasses__():
        yield from kinds(extending)


@pytest.mark.slow  # imports everything
def test_errors_of_every_class_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in (components, runner):
        for module in walk_packages(package.__path__, f"{package.__name__}."):
            if module.name != "components.ports":  # which only a step's process can import
                import_module(module.name)
    found = [kind for kind in kinds() if kind.__module__.startswith(("components.", "runner."))]
    assert {NoSuchObject, Unreadable, NotKfp, Unreachable} < {*found}, "also classes of classes, and of the runner"
    for kind in found:
        error = kind.__new__(kind)
        UserError.__init__(error, "a is\nwrong", "give\nb")  # some take more arguments
        monkeypatch.setattr("runner.registry.models.handle", _raising(error))
        with pytest.raises(SystemExit) as end:
            main(dict, ["models"])
        assert (end.value.code, capsys.readouterr().err) == (2, "error: a is wrong; give b\n"), kind
        failure = read_failure("train", [event(error), *TRACEBACK])
        assert (failure.exit_code, failure.error) == (2, "a is wrong; give b"), kind
        nearest = next(base for base in kind.__mro__ if base in TYPES.values())
        assert type(failure.reported) is nearest, kind


def _raising(error: UserError) -> Callable[..., int]:
    def handle(_: object) -> int:
        raise error

    return handle


def test_an_error_of_a_class_that_is_not_known_is_reported() -> None:
    failure = read_failure("train", [event(UserError("a", "b")).replace('"UserError"', '"OfAnotherVersion"')])
    assert (type(failure.reported), failure.error, failure.exit_code) == (UserError, "a; b", 2)


BAD_ERROR = EVENT + '{"event": "error", "error": "UserError", "message": 1, "remedy": ""}'


@pytest.mark.parametrize(
    "line",
    [
        EVENT,
        EVENT + '{"event": "error"}',
        BAD_ERROR,
        EVENT + "{",
        EVENT + "[]",
        EVENT + "{}",
        EVENT + '{"event": "other"}',
    ],
)
def test_a_line_that_is_no_error_event_is_no_report(line: str) -> None:
    assert read_failure("train", [line, *TRACEBACK]).reported is None


def test_without_lines_the_error_is_unknown() -> None:
    assert read_failure("train", []).error is None
