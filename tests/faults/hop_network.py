"""Downloads in a network of its own, whose hosts redirect to each other, and prints as JSON how each ended.

unshare --net --mount python hop_network.py < CASES     # [[url, {host and path: target}], ...]
"""

import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# name -> address; a public one, private ones, and those at which clouds give credentials to who asks
HOSTS = {
    "data.example.org": "93.184.216.34",
    "cdn.example.net": "151.101.1.69",
    "nas.corp.example": "10.0.0.5",
    "mirror.corp.example": "192.168.7.9",
    "loop.example.net": "127.0.0.1",
    "meta.example.net": "169.254.169.254",
    "shared.example.net": "100.100.100.200",
    "six.example.net": "fd00:ec2::254",
    "mapped.example.net": "::ffff:10.0.0.5",
}
ARCHIVE = b"the archive"


class Handler(BaseHTTPRequestHandler):
    """Redirects as the case says, or serves the archive."""

    server: Any

    def do_GET(self) -> None:
        place = f"{self.headers['Host']}{self.path}"
        self.server.reached.append(f"{self.connection.getsockname()[0].removeprefix('::ffff:')}{self.path}")
        target = self.server.targets.get(place)
        self.send_response(302 if target else 200)
        if target:
            self.send_header("Location", target)
        self.send_header("Content-Length", "0" if target else str(len(ARCHIVE)))
        self.end_headers()
        self.wfile.write(b"" if target else ARCHIVE)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class Server(ThreadingHTTPServer):
    """All hosts, at one port: over TLS if there is a context."""

    address_family = socket.AF_INET6  # which takes IPv4, too
    daemon_threads = True

    def __init__(self, port: int, context: ssl.SSLContext | None) -> None:
        super().__init__(("::", port), Handler)
        self.reached: list[str] = []
        self.targets: dict[str, str] = {}
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, *_: Any) -> None:
        """Ignore clients that hang up."""


def main() -> None:
    """Set up the network, and download each case from the address that the user typed."""
    with tempfile.TemporaryDirectory() as folder:
        _set_up(Path(folder))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*_certify(Path(folder)))
        servers = [Server(443, context), Server(80, None)]
        for server in servers:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        print(json.dumps([_try(servers, *case) for case in json.load(sys.stdin)]))


def _certify(folder: Path) -> tuple[Path, Path]:
    """Create a certificate for all hosts, by name and by address, and let clients trust it."""
    names = [f"DNS:{name}" for name in ("localhost", *HOSTS)]
    addresses = [f"IP:{address}" for address in HOSTS.values() if not address.startswith("::")]
    certificate, key = folder / "server.crt", folder / "server.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=hops", "-addext", f"subjectAltName={','.join(names + addresses)}", "-days", "2"]
    subprocess.run([*command, "-out", certificate, "-keyout", key], check=True, capture_output=True)
    os.environ["REQUESTS_CA_BUNDLE"] = str(certificate)
    return certificate, key


def _set_up(folder: Path) -> None:
    """Give the machine all addresses, and its resolver all names."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for address in HOSTS.values():
        if address != "127.0.0.1" and not address.startswith("::"):
            flags = ["nodad"] if ":" in address else []
            subprocess.run(["ip", "address", "add", address, "dev", "lo", *flags], check=True)
    hosts = {"localhost": "127.0.0.1", **HOSTS}
    (folder / "hosts").write_text("".join(f"{address} {name}\n" for name, address in hosts.items()))
    subprocess.run(["mount", "--bind", folder / "hosts", "/etc/hosts"], check=True)


def _try(servers: list[Server], url: str, targets: dict[str, str]) -> dict[str, Any]:
    from components.shared.core.errors import UserError
    from components.shared.data.sources.http import fetch_url

    reached: list[str] = []
    for server in servers:
        server.targets, server.reached = targets, reached
    error = ""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        try:
            assert fetch_url(url).path.read_bytes() == ARCHIVE
        except UserError as refused:
            error = str(refused)
    return {"reached": reached, "error": error}


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        main()
