"""Conditional writes: one of several writers succeeds."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.shared.core.errors import UserError
from components.shared.storage.client import Store
from components.shared.storage.errors import Conflict
from tests.servers.s3_server import Proxy, drop_response, ignore

pytestmark = pytest.mark.slow  # each test needs the real server


def test_a_conditional_write_replaces_only_what_it_expects(store: Store) -> None:
    first = store.put_bytes(b"1", "pointer", if_absent=True)
    with pytest.raises(Conflict, match="was written by another"):
        store.put_bytes(b"2", "pointer", if_absent=True)
    second = store.put_bytes(b"2", "pointer", if_match=first)
    with pytest.raises(Conflict):
        store.put_bytes(b"3", "pointer", if_match=first)
    with pytest.raises(Conflict):
        store.put_bytes(b"3", "not there", if_match=first)
    assert store.get_bytes("pointer") == (b"2", second)


def test_one_of_many_concurrent_writers_succeeds(store: Store) -> None:
    etag, gate = "", threading.Barrier(24, timeout=300)
    for _ in range(3):  # the first round creates the object, the others replace it

        def write(number: int, etag: str = etag) -> bytes | None:
            gate.wait()
            content = f"{etag} {number}".encode()  # new in each round: the ETag depends on the content
            try:
                store.put_bytes(content, "pointer", if_absent=not etag, if_match=etag)
            except Conflict:
                return None
            return content

        with ThreadPoolExecutor(24) as pool:
            winners = [won for won in pool.map(write, range(24)) if won is not None]
        content, etag = store.get_bytes("pointer")
        assert winners == [content]


@pytest.mark.parametrize("condition", [{"if_absent": True}, {"if_match": "etag"}])
def test_a_write_whose_response_was_lost_has_succeeded(
    proxied: Store, network: Proxy, waits: list[float], condition: dict[str, bool | str]
) -> None:
    if "if_match" in condition:
        condition = {"if_match": proxied.put_bytes(b"0", "pointer")}
    proxied.put_bytes(b"0", "first", if_absent=True)  # tries once whether the server honors conditions
    network.script = [drop_response]
    etag = proxied.put_bytes(b"1", "pointer", **condition)  # type: ignore[arg-type]
    assert proxied.get_bytes("pointer") == (b"1", etag)
    assert waits


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_server_that_ignores_a_condition_gets_no_such_write(proxied: Store, network: Proxy, header: str) -> None:
    network.always = ignore(header)
    for _ in range(2):
        with pytest.raises(UserError, match=rf"{proxied.uri()}: the server ignores {header}, so .*; use an S3 server"):
            proxied.put_bytes(b"1", "pointer", if_absent=True)
    network.always = None
    assert not proxied.exists("pointer")


def test_conditions_are_tried_once_in_a_process(proxied: Store, network: Proxy) -> None:
    for name in ("a", "b", "c"):
        proxied.put_bytes(b"1", name, if_absent=True)
    assert [path.rpartition("/")[2] for _, path, _ in network.asked] == ["conditions"] * 3 + ["a", "b", "c"]
