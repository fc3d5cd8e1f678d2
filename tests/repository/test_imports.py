"""The directions of imports, read from the syntax trees."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from components.step_table import STEPS

ROOT = Path(__file__).parents[2]
SOURCES = [ROOT / "pipeline.py", *sorted((ROOT / "components").rglob("*.py")), *sorted((ROOT / "runner").rglob("*.py"))]
MODULES = {step.module for step in STEPS}


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _imports(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _breaches(name: str, imports: set[str]) -> set[str]:
    """What module `name` must not import."""
    forbidden = set()
    if name != "pipeline" and not name.startswith("runner") and name != "components.steps":
        forbidden |= {i for i in imports if i.split(".")[0] in ("kfp", "runner", "pipeline")}
    if not name.startswith("components.shared.storage."):
        forbidden |= {i for i in imports if i.split(".")[0] == "minio"}
    if name.startswith("components.shared"):
        forbidden |= {i for i in imports if i.startswith("components.") and not i.startswith("components.shared")}
    if name.removeprefix("components.") in MODULES:
        steps = {f"components.{module}" for module in MODULES}
        forbidden |= {i for i in imports if ".".join(i.split(".")[:2]) in steps | {"components.steps"}}
    if name.startswith("runner"):
        forbidden |= {i for i in imports if i == "pipeline"}
    return forbidden


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_imports_go_one_way(path: Path) -> None:
    assert not _breaches(_name(path), _imports(ast.parse(path.read_text())))


def test_a_breach_would_be_seen() -> None:
    assert _breaches("components.train", {"kfp"}) == {"kfp"}
    assert _breaches("components.train", {"components.download"}) == {"components.download"}
    assert _breaches("components.download", {"minio"}) == {"minio"}
    assert _breaches("components.shared.data.sources.idx", {"components.train"}) == {"components.train"}


@pytest.mark.parametrize("step", [*(step.module for step in STEPS if step.image == "data"), "register"])
def test_steps_of_the_data_image_load_no_torch(step: str) -> None:
    code = f"import sys, components.{step}; print('torch' in sys.modules, 'kfp' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout == "False False\n"
