"""docs/cluster.md explains every message of a run that is watched, and no other: read from the syntax trees."""

import ast
import re
from collections.abc import Iterator

from runner.cluster import run_state
from tests.repository.documents import ROOT, read

MODULES = sorted((ROOT / "runner" / "cluster" / "watch").glob("*.py"))
SHOWING = {"Reason": 0, "refuse": 1, "print": 0, "show": 0}  # what shows a message, and in which argument
GAP = "…"


def _text(node: ast.expr) -> str:
    """Return a string of the code with a gap for each value in it; only a gap for other expressions."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    return GAP


def _messages(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in SHOWING and len(node.args) > SHOWING[name]:
                yield _text(node.args[SHOWING[name]])
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if node.targets[0].id == "UNSEEN" and isinstance(node.value, ast.Dict):
                yield from (f"{_text(value)}: {GAP}" for value in node.value.values)
            elif node.targets[0].id == "UNREADABLE":
                yield _text(node.value)


def _shown(text: str) -> str:
    """Return a message as the document writes it: its first line, without the step that it is of."""
    line = re.sub(rf"^\[[^\]]*\] |^{GAP} ", "", text.strip().splitlines()[0] if text.strip() else "")
    return re.sub(rf"`[^`]*`|{GAP}( {GAP})+", GAP, line)


def _documented() -> list[str]:
    section = read("docs/cluster.md").split("## What a run says")[1].split("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", section.split("Messages, where")[1], re.M)


def test_the_messages_of_a_watched_run_are_documented() -> None:
    found = {_shown(text) for path in MODULES for text in _messages(ast.parse(path.read_text()))}
    wordless = {text for text in found if not re.search("[a-z]{3}", text)}
    assert sorted(found - wordless) == sorted(_documented())


def test_the_states_of_a_step_are_documented() -> None:
    section = read("docs/cluster.md").split("| state of a step |")[1].split("\n\n")[0]
    states = {*run_state.BY_WEIGHT, run_state.UNKNOWN} - {"canceling", "paused", "waiting"}  # of a run that goes on
    rows = re.findall(r"^\| (`.*?`) \|", section, re.M)
    assert {state for row in rows for state in re.findall("`([^`]+)`", row)} == states
