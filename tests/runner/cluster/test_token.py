"""When a token expires, as it says itself."""

import base64
from datetime import UTC, datetime, timedelta

import pytest

from runner.cluster.token import expired_since, expiry, span
from tests.runner.tokens import jwt, registry_token


@pytest.mark.parametrize("make", [jwt, registry_token])
def test_a_token_says_when_it_expires(make: object) -> None:
    assert callable(make)
    end = expiry(make(3600))
    assert end and abs(end - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=1)
    assert expired_since(make(3600)) == ""
    assert expired_since(make(-7300)) == "2 hours"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "kept-secret",
        "a.b.c",
        "a..c",
        "a.e30.c",
        "a.W10.c",
        "a.éé.c",
        jwt(0, exp="soon"),
        jwt(0, exp=1e30),
        base64.b64encode(b'{"expiration": null}').decode(),
    ],
)
def test_other_texts_say_nothing(token: str) -> None:
    assert expiry(token) is None and expired_since(token) == ""


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (timedelta(seconds=59), "less than a minute"),
        (timedelta(seconds=60), "1 minute"),
        (timedelta(minutes=119), "1 hour"),
        (timedelta(days=12, hours=3), "12 days"),
    ],
)
def test_a_time_is_told_in_its_largest_unit(time: timedelta, text: str) -> None:
    assert span(time) == text
