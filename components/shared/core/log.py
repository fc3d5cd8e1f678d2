"""Progress as plain lines, which a terminal's runner turns into a bar and a pod's log keeps as they are."""

import time


def say(step: str, text: str) -> None:
    """Print one line of a step: `[step] text`."""
    print(f"[{step}] {text}", flush=True)


class Progress:
    """Count work and print a line a second: `[step] label: 42 % (25,200/60,000 images, 16,900 images/s, loss 0.12)`."""

    def __init__(self, step: str, label: str, total: int, unit: str) -> None:
        """Start counting; `total` in `unit` (0 where it is not known)."""
        self.step, self.label, self.total, self.unit = step, label, total, unit
        self.done = 0
        self.started = self.printed = time.monotonic()

    def advance(self, amount: int, **facts: float) -> None:
        """Add finished work; `facts` are figures to show beside it."""
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
        say(self.step, f"{self.label}: {share} ({', '.join(parts)})")
