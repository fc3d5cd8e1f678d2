"""Tries the doors of an S3 server as another user of the machine, and prints as JSON what it found.

python intruder.py UID DOOR... < CERTIFICATE     # ports and paths of sockets; a certificate and key of another server
"""

import json
import os
import socket
import ssl
import sys
import tempfile
from collections.abc import Iterator

HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # the preface, and empty settings
SETTINGS = 4  # the type of a server's first frame, if it lets the client in
REQUESTS = [
    *(("GET", path) for path in ("/", "/dir/assign", "/dir/status", "/col/delete?collection=torch2kubeflow")),
    *(("GET", path) for path in ("/buckets/", "/buckets/torch2kubeflow/secret", "/torch2kubeflow/secret", "/metrics")),
    *((method, "/torch2kubeflow/secret") for method in ("PUT", "DELETE")),
]
NEEDS_TLS = 400  # the status of Go's servers


def main() -> None:
    """Become the user and try every door."""
    contexts = {kind: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) for kind in ("without", "foreign")}
    with tempfile.NamedTemporaryFile() as file:
        file.write(sys.stdin.buffer.read())
        file.flush()
        contexts["foreign"].load_cert_chain(file.name)
    for one in contexts.values():
        one.check_hostname, one.verify_mode = False, ssl.CERT_NONE
    if uid := int(sys.argv[1]):
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    there = [door for door in sys.argv[2:] if _is_there(door)]
    print(json.dumps({"there": there, "answers": [found for door in there for found in _try(door, contexts)]}))


def _try(door: str, contexts: dict[str, ssl.SSLContext]) -> Iterator[tuple[str, str, int]]:
    """Yield what a door answers: the door, the request, and the status."""
    for kind, context in {"plain": None, **contexts}.items():
        answer = _ask(door, HTTP2, context)
        if len(answer) > 3 and answer[3] == SETTINGS:
            yield door, f"HTTP/2, {kind}", 0
        for method, path in REQUESTS:
            request = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx"
            answer = _ask(door, request.encode(), context, "http/1.1")
            status = int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1") else NEEDS_TLS
            if status != NEEDS_TLS:
                yield door, f"{method} {path}, {kind}", status


def _ask(door: str, request: bytes, context: ssl.SSLContext | None, protocol: str = "h2") -> bytes:
    """Return the beginning of the answer; nothing if there is none."""
    try:
        with _connect(door) as connection:
            if context:
                context.set_alpn_protocols([protocol])
                connection = context.wrap_socket(connection)
            connection.sendall(request)
            return connection.recv(4096)
    except OSError:
        return b""


def _connect(door: str) -> socket.socket:
    connection = socket.socket(socket.AF_INET if door.isdecimal() else socket.AF_UNIX)
    connection.settimeout(5)
    try:
        connection.connect(("127.0.0.1", int(door)) if door.isdecimal() else door.replace("@", "\0", 1))
    except OSError:
        connection.close()
        raise
    return connection


def _is_there(door: str) -> bool:
    try:
        _connect(door).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
