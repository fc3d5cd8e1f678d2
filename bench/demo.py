"""How long the page of the demo takes: `python bench/demo.py` (needs Debian's Chromium, and a run in the store).

Opens the page of the champion in `runs/` in a new profile of Chromium each time, so that nothing is cached or compiled,
and draws a line at once: the first prediction is timed from the load event to the frame in which its probabilities are
set. Then it moves the pointer on, and times each later prediction from the drawing to the probabilities and the maps.
"""

import argparse
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

from measure import ROOT, median, write_result
from playwright.sync_api import Browser, sync_playwright

from runner.cli import main as run_verb
from runner.demo.onnxruntime_web import PACKAGE, VERSION
from runner.demo.server import bound_server

CHROMIUM = "/usr/bin/chromium"
# Draws as soon as the page has loaded, and keeps when that was.
DRAW_AT_ONCE = """
addEventListener("load", () => {
  const pad = document.querySelector("#pad");
  const { left, top, width, height } = pad.getBoundingClientRect();
  window.send = (name, x, y) => pad.dispatchEvent(new PointerEvent(name, {
    pointerId: 1, isPrimary: true, button: 0, bubbles: true, clientX: left + x * width, clientY: top + y * height,
  }));
  document.addEventListener("prediction", () => (window.first ??= performance.now()));
  setTimeout(() => {
    send("pointerdown", 0.3, 0.2);
    send("pointermove", 0.7, 0.2);
  });
});
"""
LATER = """async (count) => {
  const predicted = () => new Promise((done) => document.addEventListener("prediction", done, { once: true }));
  performance.clearMeasures("prediction");
  for (let i = 1; i <= count; i++) {
    const next = predicted();
    send("pointermove", 0.7 - 0.3 * i / count, 0.2 + 0.6 * i / count);
    await next;
  }
  return performance.getEntriesByName("prediction").map((entry) => entry.duration);
}"""


def main() -> None:
    """Measure, print, and write `bench/results/demo.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visits", type=int, default=10)
    parser.add_argument("--later", type=int, default=10, help="later predictions in each visit")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "demo"
        _make(folder, arguments.runs)
        with bound_server(folder, "127.0.0.1", 0) as server, sync_playwright() as playwright:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            flags = ["--no-sandbox", "--disable-dev-shm-usage"]
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
            visits = [_visit(browser, server.url, arguments.later) for _ in range(arguments.visits)]
            chromium = browser.version
            browser.close()
            server.shutdown()
    later = [one for visit in visits for one in visit["later_ms"]]
    document = {
        "chromium": chromium,
        "runtime": f"{PACKAGE} {VERSION}",
        "load_average": round(os.getloadavg()[0], 1),  # of the machine, with the bench itself
        "niceness": os.nice(0),
        "first_prediction_after_load_ms": median([visit["first_after_load_ms"] for visit in visits]),
        "first_prediction_after_navigation_ms": median([visit["first_ms"] for visit in visits]),
        "later_prediction_ms": round(median(later), 1),
        "visits": visits,
    }
    path = write_result("demo", document)
    print(*(f"{name}: {document[name]}" for name in document if name.endswith("_ms")), path, sep="\n")


def _make(folder: Path, runs: Path) -> None:
    try:
        run_verb(dict, ["demo", "--runs", str(runs), "--output", str(folder), "--versions", "1", "--no-serve"])
    except SystemExit as ended:
        if ended.code:
            raise


def _visit(browser: Browser, address: str, later: int) -> dict[str, Any]:
    """Return the milliseconds of the predictions of one visit with a new profile."""
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script(DRAW_AT_ONCE)
    page.goto(address)
    while not page.evaluate("window.first"):
        page.wait_for_timeout(20)
    first, loaded = page.evaluate("[first, performance.getEntriesByType('navigation')[0].loadEventStart]")
    durations = page.evaluate(LATER, later)
    context.close()
    return {
        "first_after_load_ms": round(first - loaded, 1),
        "first_ms": round(first, 1),
        "later_ms": [round(duration, 2) for duration in durations],
    }


if __name__ == "__main__":
    main()
