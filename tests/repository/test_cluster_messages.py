"""docs/cluster.md explains every message of a watched run and of the connection, and no other: read from the code."""

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from runner.cluster import run_state
from tests.repository.documents import ROOT, read

MODULES = sorted((ROOT / "runner" / "cluster" / "watch").glob("*.py"))
SHOWING = {"Reason": 0, "refuse": 1, "say": 0, "show": 0}  # what shows a message, and in which argument
CONNECTION = [
    ROOT / "components" / "shared" / "core" / "proxy.py",
    *(
        ROOT / "runner" / "cluster" / f"{name}.py"
        for name in ("connection", "gateway", "kube", "options", "rest", "store")
    ),
]
RAISING = {
    "UserError": 0,
    "NoProfile": 0,
    "Fault": 0,
    "ApiError": 1,
}  # what is raised with a message, in which argument
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


def _raised(tree: ast.Module) -> Iterator[str]:
    """Yield the messages of errors: what is raised, and what a function returns as a message and its remedy."""
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        found = [node for node in ast.walk(function) if isinstance(node, ast.Assign)]
        values = {node.targets[0].id: node.value for node in found if isinstance(node.targets[0], ast.Name)}
        for node in ast.walk(function):
            name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
            if isinstance(node, ast.Tuple) and len(node.elts) == 2 and _is_text(node.elts[0], values):
                yield _text(_value(node.elts[0], values))
            elif isinstance(node, ast.Call) and name in RAISING and len(node.args) > RAISING[name]:
                yield _text(_value(node.args[RAISING[name]], values))


def _value(node: ast.expr, values: Mapping[str, ast.expr]) -> ast.expr:
    """Return what a local variable was set to; another expression as it is."""
    return values.get(node.id, node) if isinstance(node, ast.Name) else node


def _is_text(node: ast.expr, values: Mapping[str, ast.expr]) -> bool:
    found = _value(node, values)
    return isinstance(found, ast.JoinedStr) or (isinstance(found, ast.Constant) and isinstance(found.value, str))


def _shown(text: str) -> str:
    """Return a message as the document writes it: its first line, without the step that it is of."""
    line = re.sub(rf"^\[[^\]]*\] |^{GAP} ", "", text.strip().splitlines()[0] if text.strip() else "")
    return re.sub(rf"`[^`]*`|{GAP}( ?{GAP})+", GAP, line)


def _documented(heading: str) -> list[str]:
    section = read("docs/cluster.md").split(heading)[1].split("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", section.split("Messages, where")[1], re.M)


def _found(paths: list[Path], messages: Callable[[ast.Module], Iterator[str]]) -> list[str]:
    found = {_shown(text) for path in paths for text in messages(ast.parse(path.read_text()))}
    return sorted(text for text in found if re.search("[a-z]{3}", text) and " " in text)


def test_the_messages_of_a_watched_run_are_documented() -> None:
    assert _found(MODULES, _messages) == sorted(_documented("## What a run says"))


def test_the_messages_of_the_connection_are_documented() -> None:
    assert _found(CONNECTION, _raised) == sorted(_documented("## How a verb reaches KFP"))


def test_the_states_of_a_step_are_documented() -> None:
    section = read("docs/cluster.md").split("| state of a step |")[1].split("\n\n")[0]
    states = {*run_state.BY_WEIGHT, run_state.UNKNOWN} - {"canceling", "paused", "waiting"}  # of a run that goes on
    rows = re.findall(r"^\| (`.*?`) \|", section, re.M)
    assert {state for row in rows for state in re.findall("`([^`]+)`", row)} == states
