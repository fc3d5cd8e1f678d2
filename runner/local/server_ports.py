"""The ports of the embedded S3 server, and the Unix sockets that SeaweedFS makes for them in /tmp."""

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

SOCKETS = Path("/tmp")  # fixed in SeaweedFS
SOCKET = re.compile(r"seaweedfs-[a-z0-9-]+-(\d+)\.sock")
STALE_SECONDS = 60  # a younger one may be of a server that starts just now


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that are free."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in sockets]
    finally:
        for free in sockets:
            free.close()


def unused_ports(count: int) -> list[int]:
    """Return free ports for which there is no socket yet: SeaweedFS does not start if it is another user's."""
    taken = {port for port, _ in _sockets()}
    ports: set[int] = set()
    while len(ports) < count:
        ports |= set(free_ports(count - len(ports))) - taken
    return list(ports)


def remove_sockets(ports: list[int]) -> None:
    """Remove the sockets of a server that has ended."""
    for port, path in _sockets():
        if port in ports:
            with suppress(OSError):  # another user's
                path.unlink()


def remove_stale_sockets() -> None:
    """Remove this user's sockets at which no server listens: those of servers that were killed."""
    before = time.time() - STALE_SECONDS
    for _, path in _sockets():
        with suppress(OSError):
            state = path.lstat()
            if state.st_uid == os.getuid() and state.st_mtime < before and _is_dead(path):
                path.unlink()


def _sockets() -> Iterator[tuple[int, Path]]:
    for path in SOCKETS.iterdir():
        if found := SOCKET.fullmatch(path.name):
            yield int(found[1]), path


def _is_dead(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return path.is_socket()
    return False
