"""What a token says of itself: when it expires. It is read, and not verified."""

import base64
import binascii
import json
from datetime import UTC, datetime, timedelta
from typing import Any

UNITS = (("day", 86400), ("hour", 3600), ("minute", 60))


def expiry(token: str) -> datetime | None:
    """Return when a token expires: the claim `exp` of a JWT, or `expiration` of Amazon's registry; None if unknown."""
    found = _claims(token)
    seconds = found.get("exp", found.get("expiration"))
    if not isinstance(seconds, int | float):
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return None


def expired_since(token: str) -> str:
    """Return for how long a token has been expired, such as `3 hours`; empty if it is not, or does not say."""
    end = expiry(token)
    return span(datetime.now(UTC) - end) if end and end < datetime.now(UTC) else ""


def span(time: timedelta) -> str:
    """Return a time in its largest whole unit."""
    seconds = time.total_seconds()
    for unit, size in UNITS:
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' * (count != 1)}"
    return "less than a minute"


def _claims(token: str) -> dict[str, Any]:
    """Return the payload of a JWT, or of a text in base64; empty if it is neither."""
    parts = token.split(".")
    payload = parts[1] if len(parts) == 3 else token
    try:
        found = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, binascii.Error):
        return {}
    return found if isinstance(found, dict) else {}
