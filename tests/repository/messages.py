"""The messages that people meet, as the code has them, with a gap for each value."""

import ast
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

RAISING = {  # what is raised with a message, in which argument
    "UserError": 0,
    "NoProfile": 0,
    "Fault": 0,
    "ApiError": 1,
    "Failed": 0,
    "NotServed": 0,
    "Undrawable": 0,
    "_unready": 2,  # what a wait that ends raises
}
GAP = "…"

Values = Mapping[str, ast.expr]


def text_of(node: ast.expr, values: Values | None = None) -> str:
    """Return a string of the code with a gap for each value in it; only a gap for other expressions."""
    values = values or {}
    node = _value(node, values)
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part, values) for part in node.values)
    if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Name) and node.value.id.isupper():
        return text_of(node.value, values)
    return GAP


def raised(tree: ast.AST, constants: Values | None = None) -> Iterator[str]:
    """Yield the messages of errors: what is raised, and what a function returns as a message and its remedy."""
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
        values = {**(constants or {}), **_assigned(ast.walk(function))}
        for node in ast.walk(function):
            call = node.func if isinstance(node, ast.Call) else None
            name = call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "")
            if isinstance(node, ast.Tuple) and len(node.elts) == 2 and _is_text(node.elts[0], values):
                yield text_of(node.elts[0], values)
            elif isinstance(node, ast.Call) and name in RAISING and len(node.args) > RAISING[name]:
                yield text_of(node.args[RAISING[name]], values)


def functions(tree: ast.Module, names: Collection[str]) -> ast.Module:
    """Return the functions of a module with these names."""
    return ast.Module([node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names], [])


def constants(paths: Sequence[Path]) -> dict[str, ast.expr]:
    """Return what the modules set at their top level, by name."""
    return {name: value for path in paths for name, value in _assigned(ast.parse(path.read_text()).body).items()}


def shown(text: str) -> str:
    """Return a message as the document writes it: its first line, without the step that it is of."""
    line = re.sub(rf"^\[[^\]]*\] |^{GAP} ", "", text.strip().splitlines()[0] if text.strip() else "")
    return re.sub(rf"`[^`]*`|{GAP}( ?{GAP})+", GAP, line)


def found(paths: Sequence[Path], messages: Callable[[ast.Module], Iterator[str]]) -> list[str]:
    """Return the messages of these modules, sorted."""
    return clear(text for path in paths for text in messages(ast.parse(path.read_text())))


def clear(texts: Iterator[str]) -> list[str]:
    """Return messages as a document writes them, sorted, but for those that have no words of their own."""
    every = {shown(text) for text in texts}
    return sorted(text for text in every if re.search("[a-z]{3}", text) and " " in text)


def documented(section: str) -> list[str]:
    """Return the messages in the tables of a section."""
    return re.findall(r"^\| `([^`]+)` \|", section, re.M)


def _assigned(nodes: Iterator[ast.AST] | Sequence[ast.AST]) -> dict[str, ast.expr]:
    assigned = [node for node in nodes if isinstance(node, ast.Assign)]
    return {node.targets[0].id: node.value for node in assigned if isinstance(node.targets[0], ast.Name)}


def _value(node: ast.expr, values: Values) -> ast.expr:
    """Return what a variable was set to, also one of another module; another expression as it is."""
    if isinstance(node, ast.Attribute) and node.attr.isupper():
        return values.get(node.attr, node)
    return values.get(node.id, node) if isinstance(node, ast.Name) else node


def _is_text(node: ast.expr, values: Values) -> bool:
    value = _value(node, values)
    return isinstance(value, ast.JoinedStr) or (isinstance(value, ast.Constant) and isinstance(value.value, str))
