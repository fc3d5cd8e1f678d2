"""The page of the demo in Chromium: drawing on it, and reading what it has predicted."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

from runner.demo.server import bound_server

CHROMIUM = Path("/usr/bin/chromium")
MILLISECONDS = 60_000  # that a busy machine may take
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage"]  # Chromium refuses to run as root with its sandbox
Lines = Sequence[Sequence[tuple[float, float]]]

# Keeps the last prediction, and resolves once nothing has been predicted for three frames.
LISTEN = """() => {
  window.last = null;
  document.addEventListener("prediction", (event) => (window.last = event.detail));
  window.rest = async () => {
    const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
    let before;
    do {
      before = window.last;
      for (let i = 0; i < 3; i++) await frame();
    } while (!window.last || window.last !== before);
    return { ...window.last, pixels: [...window.last.pixels], probabilities: [...window.last.probabilities] };
  };
}"""
DRAW = """async (lines) => {
  document.querySelector("#clear").click();
  window.last = null;
  const pad = document.querySelector("#pad");
  const { left, top, width, height } = pad.getBoundingClientRect();
  const send = (name, [x, y]) => pad.dispatchEvent(new PointerEvent(name, {
    pointerId: 1, isPrimary: true, button: 0, bubbles: true, clientX: left + x * width, clientY: top + y * height,
  }));
  for (const line of lines) {
    send("pointerdown", line[0]);
    for (const point of line.slice(1)) send("pointermove", point);
    send("pointerup", line.at(-1));
  }
  return window.rest();
}"""


@dataclass(frozen=True)
class Prediction:
    """What the page has predicted: the picture (uint8, side x side), the probabilities and the version."""

    pixels: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    version: int

    @classmethod
    def of(cls, found: dict[str, Any]) -> "Prediction":
        side = round(len(found["pixels"]) ** 0.5)
        pixels = np.array(found["pixels"], np.uint8).reshape(side, side)
        return cls(pixels, np.array(found["probabilities"], np.float32), found["version"])


@dataclass
class Visit:
    """A page that was opened, and what went wrong or was loaded there."""

    page: Page
    problems: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)

    def draw(self, lines: Lines) -> Prediction:
        """Clear the drawing, and draw lines by pointer events; return the prediction."""
        return Prediction.of(self.page.evaluate(DRAW, [[list(point) for point in line] for line in lines]))

    def rest(self) -> Prediction:
        """Return the prediction after the last change."""
        return Prediction.of(self.page.evaluate("window.rest()"))

    def places(self, line: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        """Return where points of the drawing (0 to 1) are in the window."""
        box = self.page.locator("#pad").bounding_box()
        assert box
        return [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in line]

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def wait(self) -> None:
        """Wait until a version is loaded."""
        self.page.locator("#answer").wait_for(state="visible")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Debian's Chromium without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a demo as the verb does, and yield its address."""
    with bound_server(folder, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.url
        server.shutdown()
        thread.join()


@contextmanager
def visited(browser: Browser, address: str, **settings: Any) -> Iterator[Visit]:
    """Open the page in a new profile, with Playwright's settings of a context."""
    context = browser.new_context(**settings)
    context.set_default_timeout(MILLISECONDS)
    expect.set_options(MILLISECONDS)
    visit = Visit(context.new_page())
    visit.page.on("console", lambda message: visit.problems.append(message.text) if _is_problem(message) else None)
    visit.page.on("pageerror", lambda error: visit.problems.append(str(error)))
    visit.page.on("request", lambda request: visit.addresses.append(_address(request)))
    visit.page.goto(address)
    visit.page.evaluate(LISTEN)
    yield visit
    context.close()


def _address(request: Request) -> str:
    return str(request.url)


def _is_problem(message: ConsoleMessage) -> bool:
    """Return whether a message of the console is one, other than advice to tests that read canvases."""
    return message.type in ("warning", "error") and "willReadFrequently" not in message.text
