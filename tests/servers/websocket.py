"""The websockets of a Kubernetes API server: a port-forward to a pod."""

import base64
import hashlib
import socket
import struct
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler

BINARY, CLOSE = 2, 8


class WebsocketHandler(BaseHTTPRequestHandler):
    @property
    def is_websocket(self) -> bool:
        return self.headers.get("Upgrade") == "websocket"

    def forward(self, port: int, target: int) -> None:
        """Connect the port of a pod to a port of this machine until either end hangs up."""
        self.close_connection = True
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
        self.end_headers()
        for channel in (b"\0", b"\1"):  # data, errors
            self._send(channel + struct.pack("<H", port))
        try:
            pod = socket.create_connection(("127.0.0.1", target))
        except ConnectionRefusedError as error:  # the kubelet tells it so
            self._send(b"\1" + f"an error occurred forwarding {port}: {error}".encode())
            self._send(b"", CLOSE)
            return
        with suppress(ConnectionError), pod:
            back = threading.Thread(target=self._send_back, args=(pod,), daemon=True)
            back.start()
            while data := self._receive():
                pod.sendall(data[1:])
            pod.shutdown(socket.SHUT_RDWR)
            back.join()

    def _send_back(self, pod: socket.socket) -> None:
        with suppress(ConnectionError):
            while data := pod.recv(4096):
                self._send(b"\0" + data)
            self._send(b"", CLOSE)

    def _send(self, data: bytes, kind: int = BINARY) -> None:
        length = bytes([len(data)]) if len(data) < 126 else struct.pack(">BH", 126, len(data))
        self.wfile.write(bytes([0x80 | kind]) + length + data)

    def _receive(self) -> bytes:
        """Return the next frame's data; nothing at the end."""
        head = self.rfile.read(2)
        if len(head) < 2 or head[0] & 0x0F == CLOSE:
            return b""
        length = head[1] & 0x7F
        if length >= 126:
            form = ">H" if length == 126 else ">Q"
            (length,) = struct.unpack(form, self.rfile.read(struct.calcsize(form)))
        mask, data = self.rfile.read(4), self.rfile.read(length)
        return bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
