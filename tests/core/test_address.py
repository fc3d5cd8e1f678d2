"""Addresses in texts are told without logins and queries, which may be keys."""

import pytest

from components.shared.core.printable import has_login, told, told_values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://h/x.zip", "https://h/x.zip"),
        ("https://h/x.zip?X-Amz-Signature=ab&c=%2F#sha256=1", "https://h/x.zip?...#sha256=1"),
        ("https://h?token=ab", "https://h?..."),
        ("see https://h/x?sig=ab, or (https://h/y?sig=cd).", "see https://h/x?..., or (https://h/y?...)."),
        ('{"a":"https://h/x?sig=ab","b":1}', '{"a":"https://h/x?...","b":1}'),
        ("data=https://user:pass@h/x is wrong", "data=https://...@h/x is wrong"),
        ("https://u:p@ss@h/x", "https://...@h/x"),
        ("https://u:p?w#d@h/x", "https://...@h/x"),
        ("s3://AKIA:se/cr+et@bucket/a@b", "s3://...@b"),
        ("s3://bucket/a@b/c?d", "s3://bucket/a@b/c?d"),
        ("file:///a?b", "file:///a?b"),
        ("https://h:8080/@x/y", "https://h:8080/@x/y"),
        ("https://[::1]:80/a@b", "https://[::1]:80/a@b"),
        ("what?", "what?"),
    ],
)
def test_an_address_is_told_without_its_keys(text: str, expected: str) -> None:
    assert told(text) == expected == told(expected)


@pytest.mark.parametrize("login", ["user", "user:pass", "AKIA:se/cr+et", "u:p@ss", "u:p?w#d", "u:1234", ":token"])
@pytest.mark.parametrize("scheme", ["https", "s3", "HTTPS", "ftp"])
def test_a_login_is_noticed(scheme: str, login: str) -> None:
    assert has_login(f"{scheme}://{login}@host/x.zip")
    assert not has_login(f"{scheme}://host/x.zip?mail={login}@host")


def test_parameters_are_told_whatever_their_types() -> None:
    values = {"data": "https://h/x?sig=ab", "epochs": 3, "settings": [{"epochs": 1}]}
    assert told_values(values) == {**values, "data": "https://h/x?..."}
