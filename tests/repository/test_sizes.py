"""Limits that keep the code readable: files in a folder, lines of a file and of a function, length of a test's name."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.repository.documents import ROOT, relative

FILES_OF_FOLDER = 14
LINES_OF_FILE = {"components": 400, "runner": 400, "tests": 600}
LINES_OF_FUNCTION = 50  # without its signature and docstring
LENGTH_OF_TEST_NAME = 60
EXCLUDED = {"tests/fixtures"}  # programs that run at an older commit


def _sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not any(relative(path).startswith(f"{excluded}/") for excluded in EXCLUDED):
                yield path


def _functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in _statements(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]


def _statements(parent: ast.AST) -> Iterator[ast.AST]:
    """Walk without going into expressions, in which no function is defined."""
    for node in ast.iter_child_nodes(parent):
        if not isinstance(node, ast.expr):
            yield node
            yield from _statements(node)


def _lines(function: ast.FunctionDef) -> int:
    """Return the lines of a function's body without its docstring."""
    body = function.body[ast.get_docstring(function) is not None :]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_folders_have_few_files() -> None:
    paths = [path for path in _sources("components", "runner", "tests") if path.name != "__init__.py"]
    counts = Counter(relative(path.parent) for path in paths)
    assert {folder: count for folder, count in counts.items() if count > FILES_OF_FOLDER} == {}


def test_files_are_short() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in _sources(*LINES_OF_FILE)}
    limits = {path: LINES_OF_FILE[path.relative_to(ROOT).parts[0]] for path in lengths}
    assert {relative(path): lines for path, lines in lengths.items() if lines > limits[path]} == {}


@pytest.mark.slow
def test_functions_are_short() -> None:
    paths = [ROOT / "pipeline.py", *_sources("components", "runner", "bench", "tests", "docs")]
    found = {(relative(path), function.name): _lines(function) for path in paths for function in _functions(path)}
    assert {name: lines for name, lines in found.items() if lines > LINES_OF_FUNCTION} == {}


def test_names_of_tests_are_short() -> None:
    names = {name for path in _sources("tests") for name in re.findall(r"^ *def (test_\w+)", path.read_text(), re.M)}
    assert {name for name in names if len(name) > LENGTH_OF_TEST_NAME} == set() != names
