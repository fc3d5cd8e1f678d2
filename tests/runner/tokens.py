"""Tokens as Kubernetes and registries give them."""

import base64
import json
import time
from typing import Any


def jwt(seconds: float, **claims: Any) -> str:
    """A JWT that expires in so many seconds."""
    return ".".join(["e30", _encoded({"exp": int(time.time() + seconds), **claims}), "c2lnbmF0dXJl"])


def registry_token(seconds: float) -> str:
    """A password of Amazon's registry that expires in so many seconds."""
    return _encoded({"payload": "p", "datakey": "d", "version": "2", "expiration": int(time.time() + seconds)})


def _encoded(document: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")
