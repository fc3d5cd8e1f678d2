"""The lines, bars and table that a person sees of a run."""

import io
from pathlib import Path

import pytest

from components.shared.core import log
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


def test_progress_counts_and_shows_figures(capsys: pytest.CaptureFixture[str]) -> None:
    progress = log.Progress("epoch 1/2", 60_000, "images")
    progress.advance(20_000)
    progress.advance(40_000, loss=0.1234567)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("[log] epoch 1/2: 100 % (60,000/60,000 images, ")
    assert lines[0].endswith("images/s, loss 0.1235)")


def test_the_table_shows_why_a_model_is_not_accepted(tmp_path: Path) -> None:
    stream = io.StringIO()
    document = {
        "steps": {"evaluate": {"state": "done", "seconds": 1.23}, "export": {"state": "skipped", "seconds": 0.0}},
        "seconds": 1.5,
        "test_accuracy": 0.9712,
        "accepted": False,
        "reasons": ["accuracy 97.12 % is below 98 %"],
        "registered": None,
        "sweep": None,
    }
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
    document = {
        "steps": {},
        "seconds": 1.5,
        "test_accuracy": None,
        "accepted": None,
        "reasons": None,
        "registered": None,
        "sweep": None,
    }
    Terminal(stream).show_table(document, [])
    assert stream.getvalue().splitlines()[-2:] == ["test accuracy  see the report", "verdict        see the report"]


def test_the_table_names_the_best_trial_of_a_sweep() -> None:
    stream = io.StringIO()
    trials = [{"number": 1, "settings": {}}, {"number": 2, "settings": {"epochs": 3, "network": "resnet18"}}]
    document = {
        "steps": {"trial": {"state": "done", "seconds": 60.0}},
        "seconds": 61.0,
        "test_accuracy": 0.99,
        "accepted": True,
        "reasons": [],
        "registered": None,
        "sweep": {"best": 2, "trials": trials},
    }
    Terminal(stream).show_table(document, [])
    assert stream.getvalue().splitlines()[-1] == "best trial     2 of 2: epochs=3, network=resnet18"
