"""docs/cluster.md explains every message of a watched run, the connection and the verbs: read from the code."""

import ast
import re
from collections.abc import Iterator

from runner.cluster import run_state
from tests.repository.documents import ROOT, read
from tests.repository.messages import GAP, documented, found, raised, text_of

MODULES = sorted((ROOT / "runner" / "cluster" / "watch").glob("*.py"))
SHOWING = {"Reason": 0, "refuse": 1, "say": 0, "show": 0}  # what shows a message, and in which argument
CONNECTION = [
    ROOT / "components" / "shared" / "core" / "proxy.py",
    *(
        ROOT / "runner" / "cluster" / f"{name}.py"
        for name in ("connection", "gateway", "kube", "options", "rest", "store")
    ),
]
VERBS = [
    *(path for name in ("control", "schedules") for path in sorted((ROOT / "runner" / name).glob("*.py"))),
    *sorted((ROOT / "runner" / "cluster" / "artifacts").glob("*.py")),
    *(path for path in sorted((ROOT / "runner" / "cluster").glob("*.py")) if path not in CONNECTION),
]
MARKS = {"of an earlier version"}  # no messages, but marks in a list


def _messages(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in SHOWING and len(node.args) > SHOWING[name]:
                yield text_of(node.args[SHOWING[name]])
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if node.targets[0].id == "UNSEEN" and isinstance(node.value, ast.Dict):
                yield from (f"{text_of(value)}: {GAP}" for value in node.value.values)
            elif node.targets[0].id == "UNREADABLE":
                yield text_of(node.value)


def _documented(heading: str) -> list[str]:
    section = read("docs/cluster.md").split(heading)[1].split("\n## ")[0]
    return documented(section.split("Messages, where")[1])


def test_the_messages_of_a_watched_run_are_documented() -> None:
    assert found(MODULES, _messages) == sorted(_documented("## What a run says"))


def test_the_messages_of_the_connection_are_documented() -> None:
    assert found(CONNECTION, raised) == sorted(_documented("## How a verb reaches KFP"))


def test_the_messages_of_the_verbs_are_documented() -> None:
    section = read("docs/cluster.md").split("## What the verbs say\n")[1].split("\n## ")[0]
    errors, told = {*found(VERBS, raised)} - MARKS, documented(section)
    assert len(told) == len({*told})
    assert errors <= {*told} <= errors | {*found(VERBS, _messages)}, "of what is no error, only what is asked about"


def test_the_states_of_a_step_are_documented() -> None:
    section = read("docs/cluster.md").split("| state of a step |")[1].split("\n\n")[0]
    states = {*run_state.BY_WEIGHT, run_state.UNKNOWN} - {"canceling", "paused", "waiting"}  # of a run that goes on
    rows = re.findall(r"^\| (`.*?`) \|", section, re.M)
    assert {state for row in rows for state in re.findall("`([^`]+)`", row)} == states
