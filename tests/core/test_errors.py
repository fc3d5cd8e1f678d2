"""The errors that are reported in one line, and their JSON."""

import errno

import pytest

from components.shared.core.errors import (
    CorruptDataError,
    TransientError,
    UserError,
    as_user_error,
    did_you_mean,
    disk_named,
    error_from_json,
    raise_as_corrupt,
)
from components.shared.storage.errors import NoSuchObject


def test_an_error_is_one_line_of_message_and_remedy() -> None:
    assert str(UserError("a=1 is\nnot accepted", "give  2")) == "a=1 is not accepted; give 2"
    assert str(UserError("a=1 is not accepted")) == "a=1 is not accepted"


@pytest.mark.parametrize("kind", [UserError, TransientError, CorruptDataError])
def test_an_error_survives_json(kind: type[UserError]) -> None:
    error = error_from_json(kind("a; b", "give c; d").to_json())
    assert (type(error), error.message, error.remedy) == (kind, "a; b", "give c; d")


def test_a_subclass_is_reported_as_the_type_it_extends() -> None:
    error = error_from_json(NoSuchObject("s3://a/b does not exist", "check its name").to_json())
    assert (type(error), str(error)) == (UserError, "s3://a/b does not exist; check its name")


def test_only_errors_that_the_user_can_fix_are_reported() -> None:
    mistake = UserError("a")
    assert as_user_error(mistake) is mistake
    assert as_user_error(ValueError("a bug")) is None
    assert as_user_error(OSError(errno.EACCES, "denied", "/a")) is None
    assert str(as_user_error(OSError(errno.EMFILE, "Too many open files"))) == (
        "Too many open files; raise the limit (ulimit -n)"
    )
    full = as_user_error(OSError(errno.ENOSPC, "No space left on device", "/a"))
    assert str(full) == "No space left on device: /a; free some space there"


def test_the_full_disk_is_that_which_is_written_to() -> None:
    copied = as_user_error(OSError(errno.ENOSPC, "No space left on device", "/from", None, "/to"))
    assert copied and copied.message.endswith(": /to")
    for given, expected in (((), "/folder"), (("/folder/file",), "/folder/file")):
        with pytest.raises(OSError) as full, disk_named("/folder"):
            raise OSError(errno.ENOSPC, "No space left on device", *given)
        reported = as_user_error(full.value)
        assert reported and reported.message.endswith(f": {expected}")


def test_stored_data_that_is_invalid_is_corrupt() -> None:
    with pytest.raises(CorruptDataError, match=r"^a; b$"), raise_as_corrupt():
        raise UserError("a", "b")


def test_known_names_that_resemble_a_wrong_one_are_suggested() -> None:
    assert did_you_mean("epoch", ["epochs", "seed"]) == " (did you mean epochs?)"
    assert did_you_mean("wholly different", ["epochs", "seed"]) == ""
