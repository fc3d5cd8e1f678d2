"""What handlers of requests to JSON APIs have in common."""

import json
from http.server import BaseHTTPRequestHandler
from typing import Any


class JsonHandler(BaseHTTPRequestHandler):
    """Replies with JSON, or with a text as it is, and logs nothing."""

    def reply(self, status: int, document: Any) -> None:
        is_text = isinstance(document, str)
        body = document.encode() if is_text else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if is_text else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""
