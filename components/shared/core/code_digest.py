"""Digests of the steps' code: of all of it, and of what one module reaches.

`code_version` changes with any change under `components/`. It names images and uploaded versions, where equal names
must mean equal bytes. `code_digest` changes only with code that a module can run: it is part of what determines a
prepared data set, a checkpoint or a cached step, which a comment must not invalidate.

The walk follows import statements, and runs the `__init__` of every parent package. What it cannot see - modules that
are named in a string, such as by `python -m`, and files that are read as data - a module declares in `READS`:
names of modules, `package.*` for all of a package, or paths relative to the module's folder.
tests/core/test_code_digest.py looks for what is missing.
"""

import ast
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from components.shared.core.errors import UserError
from components.shared.core.files import sha256_json

ROOT = Path(__file__).parents[3]
PACKAGE = "components"
PORTS = "components.ports"  # no step imports it: KFP embeds the text of a port
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
IGNORED = {"ctx", "kind", "type_comment"}  # fields of syntax trees without a meaning of their own


@cache
def code_version() -> str:
    """Return twelve hexadecimal digits over all sources under `components/`."""
    folder = ROOT / PACKAGE
    sources = sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".html"))
    return sha256_json([(path.relative_to(folder).as_posix(), path.read_text()) for path in sources])[:12]


@cache
def code_digest(module: str, root: Path = ROOT) -> str:
    """Return twelve hexadecimal digits over the code that `module` reaches, without comments and docstrings.

    They are the same under every supported Python. A step reaches its port, too. Raises FileNotFoundError if a module
    or a declared file does not exist.
    """
    parts = {name: _read(root, name)[0] for name in _reached(root, module)}
    for name in list(parts):
        parts |= {path: (root / path).read_text() for path in _read(root, name)[2]}
    port = _ports(root).get(module.rpartition(".")[2])
    return sha256_json([*sorted(parts.items()), port])[:12]


def check_code(step: str, module: str) -> None:
    """Raise UserError if the pipeline was compiled from other code of a step than this process has.

    Only the code that the step reaches counts: a comment elsewhere makes no mixture of images.
    """
    version, digest = os.environ.get("CODE_VERSION"), os.environ.get("CODE_DIGEST")
    if not version or version == code_version() or digest == code_digest(module):
        return
    raise UserError(
        f"the code of step {step} is {code_digest(module)} here, and the pipeline was compiled from {digest}",
        "run the pipeline again, in a cluster after pushing images of the same code",
    )


def _reached(root: Path, module: str) -> set[str]:
    """Return the names of the modules that importing and running `module` can load."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        waiting += _read(root, name)[1]
        if "." in name:
            waiting.append(name.rpartition(".")[0])
    return found


@cache
def _read(root: Path, module: str) -> tuple[str, list[str], list[str]]:
    """Return the digest of a module's syntax tree, the modules that it names, and the files it reads (from `root`)."""
    path = _path(root, module)
    tree = ast.parse(path.read_text())
    modules, files = [*_imports(root, tree)], []
    for entry in _declared(tree):
        if entry.startswith(f"{PACKAGE}."):
            modules += _expand(root, entry)
        else:
            files.append((path.parent / entry).relative_to(root).as_posix())
    return sha256_json(_plain(tree)), modules, files


def _expand(root: Path, entry: str) -> list[str]:
    """Return the names of the modules that an entry of READS declares."""
    package, star, _ = entry.partition(".*")
    return [f"{package}.{path.stem}" for path in sorted(_path(root, package).parent.glob("*.py"))] if star else [entry]


def _path(root: Path, module: str) -> Path:
    base = root.joinpath(*module.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def _imports(root: Path, tree: ast.AST) -> Iterator[str]:
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE:
            yield node.module
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name for name in names if _path(root, name).is_file())


def _statements(parent: ast.AST) -> Iterator[ast.AST]:
    """Walk without going into expressions, which import nothing: most of a tree's nodes."""
    for node in ast.iter_child_nodes(parent):
        if not isinstance(node, ast.expr):
            yield node
            yield from _statements(node)


def _declared(tree: ast.Module) -> list[str]:
    """Return what a module declares in `READS`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "READS" for t in node.targets):
            return list(ast.literal_eval(node.value))
    return []


@cache
def _ports(root: Path) -> dict[str, object]:
    """Return the syntax trees of the ports by the names of their steps."""
    body = ast.parse(_path(root, PORTS).read_text()).body
    return {node.name: _plain(node) for node in body if isinstance(node, ast.FunctionDef)}


def _plain(value: object) -> object:
    """Return a syntax tree as nested lists of its types and fields, without positions, docstrings and empty fields."""
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if not isinstance(value, ast.AST):
        return repr(value)
    fields = []
    for name in value._fields:
        part = getattr(value, name, None)
        if name == "body" and isinstance(value, DOCUMENTED):
            part = value.body[ast.get_docstring(value, clean=False) is not None :]
        if part is not None and part != [] and name not in IGNORED:
            fields.append([name, _plain(part)])
    return [type(value).__name__, fields]
