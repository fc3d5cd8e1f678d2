"""Leases in the store: pytest tests/storage/test_lease.py"""

import time
from io import BytesIO
from typing import Any

import pytest

from components.shared.core.errors import UserError
from components.shared.storage import lease
from components.shared.storage.client import Store
from components.shared.storage.lease import Lease
from tests.servers.s3_server import BUCKET, S3Server

NAME = "jobs/a/lease.json"

pytestmark = pytest.mark.slow  # each test needs the real server


def renewed(store: Store) -> None:
    """Wait until the lease is renewed once more."""
    _, before = store.get_bytes(NAME)
    while store.get_bytes(NAME)[1] == before:
        time.sleep(0.01)


def test_a_lease_lapses_for_all_when_it_is_not_renewed(store: Store) -> None:
    with lease.hold(store, NAME, renewal=0.05, lapse=0.4):
        early = Lease(store, NAME)
        assert not early.is_lapsed()
        time.sleep(0.6)
        renewed(store)
        assert not early.is_lapsed()
    early.is_lapsed()  # reads the last renewal, from which its clock counts
    time.sleep(0.5)
    assert early.is_lapsed() and Lease(store, NAME).is_lapsed()
    assert Lease(store, "jobs/none/lease.json").is_lapsed()
    with lease.hold(store, NAME, renewal=1, lapse=2):
        assert not early.is_lapsed()


def test_a_renewal_wins_over_a_reader_that_finds_it_lapsed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    lease.renew(store, NAME, 1, 0)
    late, read = Lease(store, NAME), store.get_bytes

    def renewed_after(name: str) -> tuple[bytes, str]:
        found = read(name)
        lease.renew(store, name, 1, 0)
        return found

    monkeypatch.setattr(store, "get_bytes", renewed_after)
    assert not late.is_lapsed()


def test_a_lapse_that_could_not_be_marked_is_retried(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    lease.renew(store, NAME, 1, 0)

    def fail(*_: object, **__: object) -> None:
        raise UserError("the store refuses")

    with monkeypatch.context() as patch:
        patch.setattr(store, "put_bytes", fail)
        assert not Lease(store, NAME).is_lapsed()
    assert Lease(store, NAME).is_lapsed()


def test_a_renewal_that_fails_is_logged_and_repeated(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_bytes = store.put_bytes
    failures: list[UserError] = []

    def fail_twice(*arguments: Any, **options: Any) -> str:
        if len(failures) < 2:
            failures.append(UserError("the store refuses"))
            raise failures[-1]
        return put_bytes(*arguments, **options)

    with lease.hold(store, NAME, renewal=0.05, lapse=0.5):
        monkeypatch.setattr(store, "put_bytes", fail_twice)
        while len(failures) < 2:
            time.sleep(0.05)
        renewed(store)
        assert not Lease(store, NAME).is_lapsed()
    assert "was not renewed; retrying in 0.05 s: the store refuses" in capsys.readouterr().out


def test_a_watch_stops_its_process_when_the_lease_lapses(store: Store) -> None:
    lease.renew(store, NAME, 0.05, 0)
    stopped = []
    Lease(store, NAME).watch(lambda: stopped.append(True))
    deadline = time.monotonic() + 300
    while not stopped and time.monotonic() < deadline:
        time.sleep(0.05)
    assert stopped


@pytest.mark.parametrize(
    ("content", "digest"), [(b"{", {"sha256": "0" * 64}), (bytes(2**24 + 1), {})], ids=["rotten", "large"]
)
def test_a_lease_that_cannot_be_read_whole_lapses(
    store: Store, server: S3Server, monkeypatch: pytest.MonkeyPatch, content: bytes, digest: dict[str, str]
) -> None:
    monkeypatch.setattr(lease, "LAPSE_SECONDS", 0.05)
    key = store.uri(NAME).removeprefix(f"s3://{BUCKET}/")
    server.client.put_object(BUCKET, key, BytesIO(content), len(content), metadata={**digest})
    seen = Lease(store, NAME)
    time.sleep(0.06)
    assert seen.is_lapsed() and Lease(store, NAME).is_lapsed()
