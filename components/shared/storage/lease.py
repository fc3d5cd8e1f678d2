"""A lease in the store: its holder renews it, and who works under it stops when it is no longer renewed.

Each renewal is another document, which says after how many seconds without the next one the lease has lapsed. Every
reader counts them by itself, so that no two clocks are compared. The first who finds it lapsed marks it so, unless it
is renewed at that moment; from then on it has lapsed for all.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.core.files import json_bytes, parse_json
from components.shared.storage.client import Store
from components.shared.storage.errors import Conflict, NoSuchObject

FORMAT = "torch2kubeflow/lease"
SECONDS = 30.0  # between two looks at it, before the first has told
HELD, LAPSED = "held", "lapsed"


@contextmanager
def hold(store: Store, name: str, renewal: float, lapse: float) -> Iterator[None]:
    """Renew the lease every `renewal` seconds until the block ends; `lapse` seconds later it has lapsed.

    UserError where the store fails at the start; later on that is told, and tried again.
    """
    ended = threading.Event()
    _renew(store, name, renewal, lapse)
    thread = threading.Thread(target=_keep, args=(store, name, renewal, lapse, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _keep(store: Store, name: str, renewal: float, lapse: float, ended: threading.Event) -> None:
    while not ended.wait(renewal):
        try:
            _renew(store, name, renewal, lapse)
        except UserError as error:
            log.info(f"could not be renewed, and is tried again: {error}")


def _renew(store: Store, name: str, renewal: float, lapse: float) -> None:
    document = {"format": FORMAT, "state": HELD, "renewal": uuid4().hex, "seconds": renewal, "lapse_seconds": lapse}
    store.put_bytes(json_bytes(document), name)


class Lease:
    """A lease as one sees it who works under it."""

    def __init__(self, store: Store, name: str) -> None:
        """Make no request yet."""
        self._store, self._name = store, name
        self._etag, self._since = "", time.monotonic()
        self.seconds = SECONDS  # between two renewals

    def is_lapsed(self) -> bool:
        """Whether nobody holds it any more; while the store cannot be asked, nobody can have renewed it either."""
        try:
            content, etag = self._store.get_bytes(self._name)
            document = parse_json(content, FORMAT, self._store.uri(self._name))
        except NoSuchObject:
            return True
        except UserError as error:
            log.info(f"could not be read, and is held on to: {error}")
            self._since = time.monotonic()
            return False
        self.seconds = document["seconds"]
        if document["state"] == LAPSED:
            return True
        if etag != self._etag:
            self._etag, self._since = etag, time.monotonic()
        if time.monotonic() - self._since < document["lapse_seconds"]:
            return False
        try:
            self._store.put_bytes(json_bytes({**document, "state": LAPSED}), self._name, if_match=etag)
        except Conflict:  # it was renewed just now
            return False
        except UserError as error:
            log.info(f"has lapsed, which could not be marked, and is looked at again: {error}")
            return False
        return True

    def watch(self, stop: Callable[[], None]) -> None:
        """Have a thread look after it, and call `stop` once it has lapsed."""
        threading.Thread(target=self._watch, args=(stop,), daemon=True).start()

    def _watch(self, stop: Callable[[], None]) -> None:
        while not self.is_lapsed():
            time.sleep(self.seconds)
        stop()
