"""Show a run to a person: progress as bars on a terminal, plain lines elsewhere, and the closing table."""

import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from components.shared.core.printable import printable, say
from runner.summary import DatasetFacts, Predicted, Registered, SummaryDocument, Sweep

LINE = re.compile(r"^\[(?P<step>[\w-]+)\] (?P<text>.*)$")
BAR = re.compile(r"^(?P<label>.*): (?P<percent>\d+) % \((?P<facts>.*)\)$")
WIDTH = 24
PREDICTS = "predict"  # the step of a run without a verdict
UNKNOWN = "not known"  # of a run in the cluster whose logs cannot be read


def note(text: str) -> None:
    """Print a note on stderr."""
    say(f"note: {text}", file=sys.stderr)


def ask(question: str) -> bool | None:
    """Return whether a user on a terminal says yes to a question; None if there is no terminal to ask on."""
    if not sys.stdin.isatty():
        return None
    print(f"{printable(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


class Terminal:
    """Shows the lines that steps print as `[step] text`; other lines only go to the log."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.live = stream.isatty()
        self.drawn = 0  # rows of bars, at the end of which the cursor is

    def show(self, line: str) -> None:
        """Show one line of a step's output, if it is meant for people."""
        found = LINE.match(printable(line.rstrip()))
        if not found:
            return
        bar = BAR.match(found["text"])
        if self.live and bar:
            self.show_bars([line])
        else:
            self.finish()
            self._write(f"{found['step']:<10} {found['text']}\n")

    def show_bars(self, lines: Sequence[str]) -> None:
        """Draw the progress of what goes on side by side, a row for each, in place of the bars before."""
        texts = [printable(line.rstrip()) for line in lines]
        found = [(line, bar) for text in texts if (line := LINE.match(text)) and (bar := BAR.match(line["text"]))]
        rows = [_bar(f"{line['step']:<10} {bar['label']}", int(bar["percent"]), bar["facts"]) for line, bar in found]
        # What has left the top of the terminal cannot be drawn again.
        most = max(shutil.get_terminal_size().lines - 2, 1)
        rows = rows if len(rows) <= most else [*rows[: most - 1], f"and {len(rows) - most + 1} more"]
        self.erase()
        self._write("\r\x1b[2K" + "\n".join(rows))
        self.drawn = len(rows) if any(int(bar["percent"]) < 100 for _, bar in found) else 0
        if not self.drawn:
            self._write("\n")

    def erase(self) -> None:
        """Take the bars that are being drawn away."""
        if self.drawn > 1:
            self._write(f"\r\x1b[{self.drawn - 1}A\x1b[J")
        elif self.drawn:
            self._write("\r\x1b[2K")
        self.drawn = 0

    def finish(self) -> None:
        """Leave the bars that are being drawn as they are."""
        if self.drawn:
            self._write("\n")
            self.drawn = 0

    def show_table(self, document: SummaryDocument, paths: list[Path], from_run: str | None = None) -> None:
        """Print the closing table of a run, with those of `paths` that exist; `from_run` reported a cached verdict."""
        column = max([12, *(len(name) + 2 for name in document.steps)])
        lines = [f"{'step':<{column}}{'state':<10}{'seconds':>8}"]
        for name, step in document.steps.items():
            lines.append(f"{name:<{column}}{step.state:<10}{step.seconds:>8.1f}")
        cached = any(step.state == "cached" for step in document.steps.values())
        lines += [
            f"{'total':<{column + 10}}{document.seconds:>8.1f}",
            *(["", "cached: reused from earlier runs with the same inputs and code"] * cached),
            "",
            *(_predicted(document.predicted) if PREDICTS in document.steps else _judged(document, from_run)),
            *_left_out(document.dataset),
            *_best(document.sweep),
            *_registered(document.registered),
            *(f"{path.stem:<15}{_short(path)}" for path in paths if path.exists()),
        ]
        self._write("\n" + "\n".join(map(printable, lines)) + "\n")

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


def _judged(document: SummaryDocument, from_run: str | None) -> list[str]:
    """Return the lines about the accuracy of a model and the verdict on it."""
    accuracy, reasons = document.test_accuracy, document.reasons or [f"why is {UNKNOWN}"]
    verdict = {True: "accepted", False: f"not accepted, not exported: {'; '.join(reasons)}", None: UNKNOWN}
    source = f" (cached, from run {from_run})" if from_run else ""
    return [
        f"{'test accuracy':<15}{UNKNOWN if accuracy is None else f'{accuracy:.2%}'}{source}",
        f"{'verdict':<15}{verdict[document.accepted]}",
    ]


def _predicted(found: Predicted | None) -> list[str]:
    """Return the lines about a table of predictions."""
    if not found:
        return [f"{'predicted':<15}{UNKNOWN}"]
    unusable = f", {found.errors:,} of them unusable" * bool(found.errors)
    share = f"{found.correct / found.labelled:.2%} of {found.labelled:,} labels" if found.labelled else ""
    return [
        f"{'predicted':<15}{found.rows:,} picture{'s' * (found.rows != 1)} by {found.model}{unusable}",
        *([f"{'correct':<15}{share}"] * bool(share)),
        f"{'drift':<15}{found.drift.removeprefix('drift: ')}",
        *([f"{'training':<15}{found.training}"] * bool(found.training)),
    ]


def _left_out(dataset: DatasetFacts | None) -> list[str]:
    """Return a line for each reason for which files of the source are left out."""
    sentences = dataset.left_out.sentences() if dataset and dataset.left_out else []
    return [f"{'' if number else 'data':<15}{sentence}" for number, sentence in enumerate(sentences)]


def _bar(label: str, percent: int, facts: str) -> str:
    """Return a bar that fits into a row of the terminal."""
    filled = WIDTH * percent // 100
    text = f"{label:<32} {'█' * filled}{'░' * (WIDTH - filled)} {percent:>3} %  {facts}"
    return text[: shutil.get_terminal_size().columns - 1]


def _best(sweep: Sweep | None) -> list[str]:
    """Return the line about the best trial of a sweep."""
    if not sweep:
        return []
    best = sweep.trials[sweep.best - 1]
    settings = ", ".join(f"{name}={value}" for name, value in best.settings.items())
    return [f"{'best trial':<15}{best.number} of {len(sweep.trials)}: {settings or 'as given'}"]


def _registered(registered: Registered | None) -> list[str]:
    """Return the line about the registered version, if the model was registered."""
    if not registered or registered.version is None:
        return []
    champion = "champion" if registered.is_champion else f"not champion: {registered.reason}"
    return [f"{'registered':<15}{registered.name} version {registered.version}, {champion}"]


def _short(path: Path) -> str:
    """Return the path as the user would type it from here."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
