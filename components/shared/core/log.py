"""The output of a step: lines for people, and events for the runner, one JSON line each."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from components.shared.core.printable import say, told

EVENT = "@torch2kubeflow "  # before the JSON of an event

_name = "log"  # of the step that this process runs


@contextmanager
def named(name: str) -> Iterator[None]:
    """Log under the name of a step or a verb until the block ends."""
    global _name
    before, _name = _name, name
    try:
        yield
    finally:
        _name = before


def info(text: str) -> None:
    """Print a line for people: `[step] text`, without the queries of addresses."""
    say(f"[{_name}] {told(text)}", flush=True)


def event(kind: str, **fields: Any) -> None:
    """Print an event for the runner, if this process is a step of a run."""
    if os.environ.get("CODE_VERSION"):
        print(EVENT + json.dumps({"event": kind, **fields}), flush=True)


def read_event(line: str) -> dict[str, Any] | None:
    """Return the event in a line of output; None if the line is not an event."""
    if not line.startswith(EVENT):
        return None
    try:
        found = json.loads(line[len(EVENT) :])
    except ValueError:  # the line was cut off
        return None
    return found if isinstance(found, dict) else None


class Progress:
    """Count work, and log at most every second `label: 42 % (25,200/60,000 images, 16,900 images/s, loss 0.12)`."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        """Start counting up to `total`, in `unit`; 0 if the total is not known."""
        self.label, self.total, self.unit = label, total, unit
        self.done = 0
        self.started = self.printed = time.monotonic()

    def advance(self, amount: int, **facts: float) -> None:
        """Add finished work; `facts` are figures to log with it."""
        self.done += amount
        now = time.monotonic()
        if now - self.printed >= 1 or self.done == self.total:
            self.printed = now
            self._print(now, facts)

    def _print(self, now: float, facts: dict[str, float]) -> None:
        rate = self.done / max(now - self.started, 1e-9)
        share = f"{self.done * 100 // self.total} %" if self.total else "?"
        of = f"/{self.total:,}" if self.total else ""
        parts = [f"{self.done:,}{of} {self.unit}", f"{rate:,.0f} {self.unit}/s"]
        parts += [f"{name.replace('_', ' ')} {value:.4g}" for name, value in facts.items()]
        info(f"{self.label}: {share} ({', '.join(parts)})")
