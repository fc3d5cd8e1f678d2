"""The lines, bars and table that a person sees of a run."""

import io
import os
from pathlib import Path
from typing import Any

import pytest

from components.shared.core import log
from components.shared.data.layout.left_out import Tally
from components.shared.training.search.outcome import TrialFigures
from runner.summary import DatasetFacts, Predicted, Registered, StepState, SummaryDocument, Sweep
from runner.terminal import Terminal


class _Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_plain_lines_without_a_terminal() -> None:
    stream = io.StringIO()
    terminal = Terminal(stream)
    terminal.show("[train] epoch 1/2: 50 % (5/10 images, 3 images/s, loss 0.1)\n")
    terminal.show("[train] epoch 1/2: 100 % (10/10 images, 3 images/s, loss 0.1)\n")
    terminal.show("a library's chatter\n")
    assert stream.getvalue().splitlines() == [
        "train      epoch 1/2: 50 % (5/10 images, 3 images/s, loss 0.1)",
        "train      epoch 1/2: 100 % (10/10 images, 3 images/s, loss 0.1)",
    ]


def test_progress_is_a_bar_on_a_terminal() -> None:
    stream = _Tty()
    terminal = Terminal(stream)
    terminal.show("[train] epoch 1/2: 50 % (5/10 images)\n")
    assert "\n" not in stream.getvalue()
    terminal.show("[train] early stop\n")
    drawn, line = stream.getvalue().removesuffix("\n").split("\n")
    assert "█" * 12 + "░" * 12 + "  50 %  5/10 images" in drawn
    assert line == "train      early stop"


def test_more_bars_than_the_terminal_has_rows_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = _Tty()
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((80, 6)))
    terminal = Terminal(stream)
    for count in (4, 9):
        bars = [f"[trial] trial {number}, epoch 1/2: 50 % (5/10 images)" for number in range(count)]
        terminal.show_bars(bars)
    few, many = stream.getvalue().split("\r\x1b[3A\x1b[J\r\x1b[2K")
    assert few.count("trial ") == 8 and "more" not in few
    assert [line[:20] for line in many.split("\n")][:3] == [f"trial      trial {number}, " for number in range(3)]
    assert many.split("\n")[3:] == ["and 6 more"]


def test_progress_counts_and_shows_figures(capsys: pytest.CaptureFixture[str]) -> None:
    progress = log.Progress("epoch 1/2", 60_000, "images")
    progress.advance(20_000)
    progress.advance(40_000, loss=0.1234567)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("[log] epoch 1/2: 100 % (60,000/60,000 images, ")
    assert lines[0].endswith("images/s, loss 0.1235)")


def summary(**known: Any) -> SummaryDocument:
    """Return the summary of a run of which little is known."""
    unknown = ("error", "dataset", "test_accuracy", "accepted", "reasons", "registered", "sweep")
    fields = {"pipeline": "p", "run_id": "r", "state": "done", "started": "2026-01-01T00:00:00Z", "seconds": 1.5}
    rest: dict[str, Any] = {"parameters": {}, "steps": {}, "artifacts": {}}
    return SummaryDocument(**{**fields, **rest, **dict.fromkeys(unknown), **known})


def trial(number: int, **settings: Any) -> TrialFigures:
    return TrialFigures(
        number=number,
        settings=settings,
        state="done",
        reason="",
        epochs=1,
        best_epoch=1,
        val_accuracy=0.5,
        val_loss=0.5,
        seconds=1.0,
    )


def test_the_table_says_what_is_left_out_of_the_data(tmp_path: Path) -> None:
    tally = Tally()
    for reason, kind in (("unreadable", ".heic"), ("sidecar", ".xml")):
        tally.add(reason, kind, "a")  # type: ignore[arg-type]
    facts = DatasetFacts(digest=64 * "0", classes=["a", "b"], counts={"train": 3}, left_out=tally.result(3))
    stream = io.StringIO()
    Terminal(stream).show_table(summary(dataset=facts), [])
    lines = ["data           1 of 4 pictures left out: 1 .heic", f"{'':<15}1 file beside the pictures left out: 1 .xml"]
    assert "\n".join(lines) in stream.getvalue()


def test_the_table_shows_why_a_model_is_not_accepted(tmp_path: Path) -> None:
    stream = io.StringIO()
    document = summary(
        steps={"evaluate": StepState(state="done", seconds=1.23), "export": StepState(state="skipped", seconds=0.0)},
        test_accuracy=0.9712,
        accepted=False,
        reasons=["accuracy 97.12 % is below 98 %"],
    )
    (tmp_path / "report.html").write_text("")
    Terminal(stream).show_table(document, [tmp_path / "report.html", tmp_path / "package"])
    shown = stream.getvalue()
    assert "evaluate    done           1.2" in shown
    assert "export      skipped        0.0" in shown
    assert "verdict        not accepted, not exported: accuracy 97.12 % is below 98 %" in shown
    assert f"report         {tmp_path}/report.html" in shown
    assert "package" not in shown


def test_the_table_guesses_nothing() -> None:
    stream = io.StringIO()
    Terminal(stream).show_table(summary(), [])
    assert stream.getvalue().splitlines()[-2:] == ["test accuracy  not known", "verdict        not known"]


@pytest.mark.parametrize(
    ("found", "lines"),
    [
        (None, ["predicted      not known"]),
        (
            Predicted(model="m/1", rows=2000, errors=2, labelled=0, correct=0, drift="no drift: small", training=""),
            ["predicted      2,000 pictures by m/1, 2 of them unusable", "drift          no drift: small"],
        ),
        (
            Predicted(model="m/1", rows=1, errors=0, labelled=4, correct=3, drift="drift: large", training="run 7"),
            [
                "predicted      1 picture by m/1",
                "correct        75.00% of 4 labels",
                "drift          large",
                "training       run 7",
            ],
        ),
    ],
)
def test_the_table_of_a_prediction_has_no_verdict(found: Predicted | None, lines: list[str]) -> None:
    stream = io.StringIO()
    steps = {"predict": StepState(state="done", seconds=1.0)}
    Terminal(stream).show_table(summary(steps=steps, predicted=found), [])
    shown = stream.getvalue().splitlines()
    assert shown[-len(lines) :] == lines and not [line for line in shown if line.startswith(("test acc", "verdict"))]


def test_the_table_names_the_best_trial_of_a_sweep() -> None:
    stream = io.StringIO()
    sweep = Sweep(best=2, trials=[trial(1), trial(2, epochs=3, network="resnet18")])
    Terminal(stream).show_table(summary(test_accuracy=0.99, accepted=True, reasons=[], sweep=sweep), [])
    assert stream.getvalue().splitlines()[-1] == "best trial     2 of 2: epochs=3, network=resnet18"


@pytest.mark.parametrize(
    ("version", "is_champion", "line"),
    [(2, True, "m version 2, champion"), (2, False, "m version 2, not champion: worse"), (None, False, None)],
)
def test_the_table_names_the_registered_version(version: int | None, is_champion: bool, line: str | None) -> None:
    stream = io.StringIO()
    registered = Registered(name="m", version=version, is_champion=is_champion, reason="worse")
    Terminal(stream).show_table(summary(registered=registered), [])
    lines = [shown for shown in stream.getvalue().splitlines() if shown.startswith("registered")]
    assert lines == ([f"registered     {line}"] if line else [])
