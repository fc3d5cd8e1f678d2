"""Write the generated parts of the documentation: docs/parameters.md, and the table of steps in docs/architecture.md.

python -m docs.generate    # `make docs`
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pipeline
from components.shared.parameters import RULES
from components.step_table import STEPS
from runner.parameters import parse_parameters

DOCS = Path(__file__).parent
PARAMETERS = """# Parameters

<!-- Generated from pipeline.py and components/shared/parameters.py by `make docs`. -->

On your laptop as `name=value` words in `ARGS`, in a cluster after the verb:

```
make run ARGS="data=fashion-mnist epochs=5 seed=3 min_accuracy=0.85 min_recall=0.5"
python pipeline.py run data=fashion-mnist epochs=5 min_accuracy=0.85 min_recall=0.5
```

Lists and objects are JSON, in quotes: `'node_selector={{"disk": "ssd"}}'`. Invalid values are rejected before anything
runs; values that depend on the data, by the first step that reads it.

{common}

## Parameters of sweeps

`--graph sweep` has these as well:

{sweep}
"""


def generated() -> dict[Path, str]:
    """Return the files with generated parts, and their content."""
    return {DOCS / "parameters.md": _parameters(), DOCS / "architecture.md": _architecture()}


def _architecture() -> str:
    """Return docs/architecture.md with the present table of steps."""
    rows = [f"| `{step.name}` | {step.image} | {step.graph or 'all'} | {step.line} |" for step in STEPS]
    table = "\n".join(["| step | image | graphs | what it does |", "|---|---|---|---|", *rows])
    text = (DOCS / "architecture.md").read_text()
    return re.sub(r"(<!-- steps[^>]*-->\n).*?(<!-- /steps -->)", rf"\1{table}\n\2", text, count=1, flags=re.S)


def _parameters() -> str:
    every, common = list(_rows(pipeline.sweep)), list(_rows(pipeline.training))
    assert every[: len(common)] == common
    return PARAMETERS.format(common=_table(common), sweep=_table(every[len(common) :]))


def _rows(graph: Any) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, default, meaning and accepted values of each parameter of a graph."""
    defaults = parse_parameters(graph, [])
    for name, spec in graph.component_spec.inputs.items():
        value = defaults[name]
        shown = value or '""' if isinstance(value, str) else json.dumps(value)
        accepted = RULES[name][1] if name in RULES else "true or false"
        yield name, f"`{shown}`", spec.description, accepted


def _table(rows: list[tuple[str, str, str, str]]) -> str:
    lines = [f"| `{name}` | {default} | {meaning} | {accepted} |" for name, default, meaning, accepted in rows]
    return "\n".join(["| name | default | meaning | accepted |", "|---|---|---|---|", *lines])


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text)
