"""docs/troubleshooting.md explains every message of `deploy`, `serve` and `demo`: read from the code."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.repository.documents import ROOT, read
from tests.repository.messages import clear, constants, documented, functions, raised, text_of

SHARED, RUNNER = ROOT / "components" / "shared", ROOT / "runner"
# Where the messages of each part are raised; of some modules, only in some functions.
MODEL = ("existing_model", "named_or_only", "champion_of", "_entry", "given_by_option", "model_at")
PARTS: dict[str, tuple[list[Path], tuple[str, ...]]] = {
    "Which model": ([SHARED / "registry" / "registry.py", RUNNER / "registry" / "address.py"], MODEL),
    "`deploy`": ([*sorted((SHARED / "serving").glob("*.py")), *sorted((RUNNER / "serving").glob("*.py"))], ()),
    "`serve`": (
        [
            *sorted((SHARED / "model_server").glob("*.py")),
            SHARED / "prediction" / "rows.py",
            ROOT / "components" / "entrypoints" / "serve_model.py",
        ],
        (),
    ),
    "`demo`": (sorted((RUNNER / "demo").glob("*.py")), ()),
}


def _noted(tree: ast.Module) -> Iterator[str]:
    """Yield what is not an error, but told beside the answer: notes, log lines, and what refuses the API's requests."""
    for node in ast.walk(tree):
        name = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""
        if isinstance(node, ast.Call) and node.args and name in ("append", "info", "_tell", "__init__"):
            yield text_of(node.args[0])


@pytest.mark.parametrize("part", PARTS)
def test_the_messages_of_what_serves_are_documented(part: str) -> None:
    paths, names = PARTS[part]
    trees = [ast.parse(path.read_text()) for path in paths]
    trees = [functions(tree, names) for tree in trees] if names else trees
    known = constants(paths)
    errors = clear(text for tree in trees for text in raised(tree, known))
    notes = clear(text for tree in trees for text in _noted(tree))
    told = documented(read("docs/troubleshooting.md").split(f"### {part}\n")[1].split("\n##")[0])
    assert len(told) == len({*told})
    assert {*errors} <= {*told} <= {*errors, *notes}


def test_each_status_of_the_model_server_is_documented() -> None:
    modules = sorted((SHARED / "model_server").glob("*.py"))
    calls = [node for path in modules for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    refusals = [call for call in calls if getattr(call.func, "id", "") == "Refused"]
    statuses = {
        call.args[1].value for call in refusals if len(call.args) > 1 and isinstance(call.args[1], ast.Constant)
    }
    section = read("docs/troubleshooting.md").split("### `serve`\n")[1].split("\n##")[0]
    assert {line.split("|")[1].strip() for line in section.splitlines() if line[2:5].isdigit()} >= {
        str(status) for status in statuses | {400, 503}
    }
