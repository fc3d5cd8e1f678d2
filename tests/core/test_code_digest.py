"""The digests of the steps' code: pytest tests/core/test_code_digest.py"""

import ast
import inspect
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import pipeline
from components.shared.core import code_digest as module
from components.shared.core.code_digest import code_digest, code_version
from components.shared.core.errors import UserError
from components.shared.core.step import step
from components.step_table import MODULES
from runner.graphs import steps_of

ROOT = Path(__file__).parents[2]
SHARED = Path("components/shared")
REPORT = SHARED / "evaluation/report/templates/report.html"
AUGMENTATION = SHARED / "training/augmentation.py"
LOOP = SHARED / "training/loop.py"
STEPS = sorted({step for graph in pipeline.GRAPHS.values() for step in steps_of(graph)})
TRAIN = {"train", "trial", "train-distributed"}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the code, to change it."""
    shutil.copytree(ROOT / "components", tmp_path / "components", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def changed_steps(copy: Path) -> set[str]:
    """Return the steps whose digest differs between the repository and its copy."""
    modules = {step: MODULES[step.replace("-", "_")] for step in STEPS}
    return {step for step, name in modules.items() if code_digest(name) != code_digest(name, copy)}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.slow
def test_a_copy_has_the_same_digests(copy: Path) -> None:
    assert changed_steps(copy) == set()


@pytest.mark.slow
def test_comments_and_docstrings_do_not_count(copy: Path) -> None:
    for path in copy.rglob("*.py"):
        path.write_text(re.sub(r'^"""', '"""More. ', path.read_text()) + "\n\n# A comment.\n")
    edit(copy / "components/ports.py", '"""Train a network', '"""Teach a network')
    assert changed_steps(copy) == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "steps"),
    [
        (REPORT, {"evaluate"}),
        (REPORT.with_name("page.html"), {"evaluate", "compare", "register", "collect"}),
        (AUGMENTATION, TRAIN),
        (LOOP, TRAIN),
        (Path("components/entrypoints/local_worker.py"), {"train", "trial"}),
        (Path("components/entrypoints/trainjob_worker.py"), {"train-distributed"}),
        # resolve looks for what this code prepared
        (SHARED / "data/preparation/splits.py", {"resolve", "preprocess", "partition", "prepare", "settle"}),
        (
            SHARED / "data/sources/http.py",
            {"resolve", "resolve-prediction", "download", "preprocess", "partition", "prepare", "settle"},
        ),
        (SHARED / "prediction/rows.py", {"predict", "collect"}),  # collect knows by it where the rows are stored
        (SHARED / "core/__init__.py", set(STEPS) - {"finish"}),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "-".join(sorted(value)),
)
def test_a_change_reaches_the_steps_that_use_it(copy: Path, path: Path, steps: set[str]) -> None:
    with open(copy / path, "a") as file:
        file.write("<!-- more -->" if path.suffix == ".html" else "\nMORE = 1\n")
    assert changed_steps(copy) - {"finish"} == steps  # finish can delete a TrainJob, whose workers it reaches


@pytest.mark.slow
def test_a_port_belongs_to_its_step(copy: Path) -> None:
    edit(copy / "components/ports.py", " = evaluate.evaluate(\n", " = evaluate.evaluate(\n        **{},\n")
    assert changed_steps(copy) == {"evaluate"}


def test_the_code_version_covers_every_byte(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = code_version()
    assert re.fullmatch("[0-9a-f]{12}", version)
    with open(copy / LOOP, "a") as file:
        file.write("# A comment.\n")
    monkeypatch.setattr(module, "ROOT", copy)
    assert code_version.__wrapped__() != version


def undeclared(root: Path) -> set[str]:
    """Return the modules that are named in strings, and the data files, that no module declares in READS."""
    data = {path for path in (root / "components").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    missing = set()
    for path in (root / "components").rglob("*.py"):
        tree = ast.parse(path.read_text())
        declared = module._declared(tree)
        data -= {path.parent / entry for entry in declared}
        missing |= set(named_modules(root, tree)) - set(declared)
    return missing | {path.relative_to(root).as_posix() for path in data}


def named_modules(root: Path, tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        name = node.value if isinstance(node, ast.Constant) else None
        if isinstance(name, str) and re.fullmatch(r"components(\.\w+)+", name) and module._path(root, name).is_file():
            yield name


@pytest.mark.slow
def test_what_an_import_does_not_show_is_declared(copy: Path) -> None:
    assert undeclared(copy) == {module.PORTS}  # of which a step has its own port alone


@pytest.mark.slow
def test_a_missing_declaration_is_found(copy: Path) -> None:
    for path in (copy / "components").rglob("*.py"):
        path.write_text(re.sub(r"^READS = .*\n", "READS = ()\n", path.read_text(), flags=re.M))
    edit(copy / SHARED / "training/distributed/launch.py", "(WORKER,) = READS", 'WORKER = "components.katib"')
    (copy / "components/katib.py").touch()
    found = undeclared(copy)
    assert {"components.katib", REPORT.as_posix()} <= found


@pytest.mark.parametrize("entry", ["components.shared.nothing", "nothing.html"])
def test_a_declaration_of_nothing_is_an_error(copy: Path, entry: str) -> None:
    with open(copy / AUGMENTATION, "a") as file:
        file.write(f"\nREADS = ({entry!r},)\n")
    with pytest.raises(FileNotFoundError):
        code_digest("components.train", copy)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_other_pythons_give_the_same_digests(version: str) -> None:
    installed = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}*/bin/python"))
    python = next(map(str, installed), None) or shutil.which(f"python{version}")
    code = "from components.shared.core.code_digest import code_digest as d; import sys; print(*map(d, sys.argv[1:]))"
    names = list(MODULES.values())
    if not python:
        pytest.skip(f"there is no python{version} here")
    found = subprocess.run([python, "-c", code, *names], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [code_digest(name) for name in names]


@step
def resolve() -> str:
    return "done"


def test_a_step_refuses_other_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect.unwrap(resolve), "__module__", "components.resolve")
    monkeypatch.setenv("CODE_VERSION", code_version())
    assert resolve() == "done"
    monkeypatch.setenv("CODE_VERSION", "another")  # a comment of another module has changed
    monkeypatch.setenv("CODE_DIGEST", code_digest("components.resolve"))
    assert resolve() == "done"
    monkeypatch.setenv("CODE_DIGEST", "another")
    with pytest.raises(UserError, match=r"the code of step resolve is .* compiled from another; run the pipeline"):
        resolve()
