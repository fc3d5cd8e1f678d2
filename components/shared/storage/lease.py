"""A lease in the store: its holder renews it, and processes that depend on it stop when it lapses.

Each renewal writes another document, which says after how many seconds without a renewal the lease lapses. Every
reader counts them on its own clock, so that clocks need not agree. The first reader that finds the lease lapsed marks
it so, unless it is renewed at that moment; from then on it has lapsed for all readers. A damaged document counts as
none, so that a lease whose holder is gone lapses all the same; the next renewal replaces it.
"""

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Literal
from uuid import uuid4

from pydantic import Field

from components.shared.core import log
from components.shared.core.document import Document, Number
from components.shared.core.errors import CorruptDataError, UserError
from components.shared.storage.client import Store
from components.shared.storage.errors import Conflict, NoSuchObject

RENEWAL_SECONDS, LAPSE_SECONDS = 30.0, 300.0  # of a holder that chooses no others
SECONDS = 30.0  # between two checks, until the document has been read

MAX_SECONDS = 86_400.0  # of both; a thread cannot sleep for any number of seconds

Interval = Annotated[Number, Field(ge=0.01, le=MAX_SECONDS)]
Seconds = Annotated[Number, Field(ge=0, le=MAX_SECONDS)]


class LeaseDocument(Document):
    """`lease.json`: a lease, as its holder or the first reader that finds it lapsed writes it."""

    FORMAT = "torch2kubeflow/lease"
    REMEDY = "wait until its holder renews it"

    state: Literal["held", "lapsed"]
    renewal: str  # differs each time
    seconds: Interval  # between two renewals
    lapse_seconds: Seconds  # without a renewal, after which it lapses


@contextmanager
def hold(store: Store, name: str, renewal: float, lapse: float) -> Iterator[None]:
    """Renew the lease every `renewal` seconds until the block ends; it lapses `lapse` seconds after the last renewal.

    Raises UserError if the first write fails; later failures are logged, and the next renewal tries again.
    """
    ended = threading.Event()
    renew(store, name, renewal, lapse)
    thread = start_vital(_renew_until, ended, store, name, renewal, lapse)
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _renew_until(ended: threading.Event, store: Store, name: str, renewal: float, lapse: float) -> None:
    while not ended.wait(renewal):
        try:
            renew(store, name, renewal, lapse)
        except UserError as error:
            log.info(f"the lease {store.uri(name)} was not renewed; retrying in {renewal:g} s: {error}")


def renew(store: Store, name: str, renewal: float, lapse: float) -> None:
    """Renew the lease once."""
    document = LeaseDocument(state="held", renewal=uuid4().hex, seconds=renewal, lapse_seconds=lapse)
    store.put_bytes(document.to_json(), name)


class Lease:
    """A lease as seen by a process that depends on it."""

    def __init__(self, store: Store, name: str) -> None:
        """Start to watch the object `name`; the first request is made by `is_lapsed`."""
        self._store, self._name = store, name
        self._etag, self._since = "", time.monotonic()
        self._damaged = ""  # the ETag of a document that was said to be so
        self._lapse_seconds = LAPSE_SECONDS
        self.seconds = SECONDS  # between two renewals

    def is_lapsed(self) -> bool:
        """Return whether nobody holds the lease any more.

        While the store is out of reach it does not lapse: the holder cannot renew it either.
        """
        try:
            document, etag = self._read()
        except NoSuchObject:
            return True
        except UserError as error:
            log.info(f"the lease could not be read and is assumed to be held: {error}")
            self._since = time.monotonic()
            return False
        if document:
            self.seconds, self._lapse_seconds = document.seconds, document.lapse_seconds
            if document.state == "lapsed":
                return True
            if etag != self._etag:
                self._etag, self._since = etag, time.monotonic()
        if time.monotonic() - self._since < self._lapse_seconds:
            return False
        return self._mark_lapsed(etag)

    def _read(self) -> tuple[LeaseDocument | None, str]:
        """Return the document, None if it is damaged, and its ETag."""
        uri = self._store.uri(self._name)
        try:
            content, etag = self._store.get_bytes(self._name)
        except CorruptDataError as error:
            return self._damage(error, self._find_etag())
        try:
            return LeaseDocument.parse(content, uri), etag
        except UserError as error:
            return self._damage(error, etag)

    def _find_etag(self) -> str:
        found = self._store.stat(self._name)
        if not found:
            raise NoSuchObject(f"{self._store.uri(self._name)} does not exist")
        return found.etag

    def _damage(self, error: UserError, etag: str) -> tuple[None, str]:
        if etag != self._damaged:
            log.info(f"the lease is damaged and counts as not renewed: {error}")
            self._damaged = etag
        return None, etag

    def _mark_lapsed(self, etag: str) -> bool:
        """Write that the lease has lapsed, unless it was renewed since; return whether it was written."""
        lapsed = LeaseDocument(
            state="lapsed", renewal=uuid4().hex, seconds=self.seconds, lapse_seconds=self._lapse_seconds
        )
        try:
            self._store.put_bytes(lapsed.to_json(), self._name, if_match=etag)
        except Conflict:
            return False
        except UserError as error:
            log.info(f"the lease has lapsed but could not be marked; retrying in {self.seconds:g} s: {error}")
            return False
        return True

    def watch(self, stop: Callable[[], None]) -> None:
        """Check the lease in a thread, and call `stop` once it has lapsed."""
        start_vital(self._watch, stop)

    def _watch(self, stop: Callable[[], None]) -> None:
        while not self.is_lapsed():
            time.sleep(self.seconds)
        stop()


def start_vital(work: Callable[..., object], *arguments: object) -> threading.Thread:
    """Start a thread without which the process must not go on.

    If `work` raises, which is a bug, its traceback is printed and the process ends at once, with exit code 1.
    """
    thread = threading.Thread(target=_run, args=(work, *arguments), daemon=True)
    thread.start()
    return thread


def _run(work: Callable[..., object], *arguments: object) -> None:
    try:
        work(*arguments)
    except BaseException:
        traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
