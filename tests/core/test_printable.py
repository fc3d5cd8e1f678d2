"""Texts of others on a terminal: no escape sequence, no forged line, no other order."""

import ast
import io
from pathlib import Path

import pytest

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.core.printable import bounded, printable, say
from runner.terminal import Terminal
from tests.conftest import ROOT

NASTY = "a\x1b[2Jb\r\nerror: c\x9b\u202ed\u2066\u2028\x00\udc80\u061c"
SHOWN = r"a\x1b[2Jb\r\nerror: c\x9b\u202ed\u2066\u2028\x00\udc80\u061c"
DOORS = {"components/shared/core/printable.py", "runner/terminal.py"}
MACHINES = {  # read these lines: they are JSON, figures, and the output of a step on its way to a log
    "components/shared/core/log.py": 1,
    "components/entrypoints/katib_trial.py": 1,
    "runner/local/steps.py": 1,
}


def test_controls_are_shown_and_letters_stay() -> None:
    assert printable(NASTY) == SHOWN
    for text in ("Grüße\t日本語 עברית العربية", "👩\u200d🔬 e\u0301", r"C:\x1b"):
        assert printable(text) == text


def test_errors_log_and_verbs_print_no_controls(capsys: pytest.CaptureFixture[str]) -> None:
    say(NASTY, NASTY)
    log.info(NASTY)
    assert capsys.readouterr().out.splitlines() == [SHOWN, SHOWN, f"[log] {SHOWN}"]
    error = UserError(f"picture {NASTY} cannot be used", NASTY)
    assert printable(str(error)) == str(error) and r"a\x1b[2Jb error: c\x9b" in error.message


def test_a_step_cannot_forge_lines_on_the_terminal() -> None:
    for line in (f"[train] {NASTY}\n", f"[train] {NASTY}: 50 % (1/2 images)\n"):
        stream = io.StringIO()
        Terminal(stream).show(line)
        assert stream.getvalue().startswith(f"train      {SHOWN}") and stream.getvalue().count("\n") == 1


@pytest.mark.parametrize("tag", ["x" * 201, "a\x1bb"])
def test_a_tag_that_is_long_or_strange_is_digested(tag: str) -> None:
    assert bounded(tag).startswith("sha256:") and len(bounded(tag)) == 71
    assert bounded(tag) != bounded(f"{tag}x") and bounded('W/"0-5f"') == 'W/"0-5f"'


@pytest.mark.slow
def test_every_line_for_people_goes_through_one_door() -> None:
    for path in [ROOT / "pipeline.py", *sorted((ROOT / "components").rglob("*.py")), *(ROOT / "runner").rglob("*.py")]:
        name = path.relative_to(ROOT).as_posix()
        if name not in DOORS:
            assert _prints(path) == MACHINES.get(name, 0), f"{name}: say, not print"


def _prints(path: Path) -> int:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return sum(isinstance(call.func, ast.Name) and call.func.id == "print" for call in calls)
