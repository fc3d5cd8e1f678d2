"""The share of small mistakes that the tests notice: `python bench/mutants.py` (an hour; needs an idle machine).

Makes every mutation of cosmic-ray in the layers storage, data, training and registry, takes 300 of them by a fixed
seed, and runs for each the tests that reach its line. A mutant is noticed if a test fails or does not end. The
environment of cosmic-ray is `make .venv-mutants/.ready`, from requirements-mutants.txt.

python bench/mutants.py --sample 20 --seed 1    # another, smaller sample
python bench/mutants.py --quick                 # only by the tests of `make test-quick`: a lower bound, in minutes
"""

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

from measure import ROOT, write_result

LAYERS = ("storage", "data", "training", "registry")
TESTS = ["tests/storage", "tests/data", "tests/training", "tests/registry", "tests/steps", "tests/core", "tests/models"]
COPIED = ("components", "runner", "tests", "docker", "manifests", "pipeline.py", "pyproject.toml", "requirements.txt")
WORKERS = 2
SECONDS = 300  # after which a mutant counts as noticed
ENUMERATE = """
import json, random, sys
from pathlib import Path
from cosmic_ray.ast import get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

def nodes(tree):
    yield tree
    for child in getattr(tree, "children", []):
        yield from nodes(child)

operators = {name: get_operator(name)() for name in operator_names() if "NoOp" not in name and "Variable" not in name}
found = []
for path in sys.argv[3:]:
    tree = list(nodes(get_ast(Path(path).read_text())))
    for name, operator in operators.items():
        count = sum(len(list(operator.mutation_positions(node))) for node in tree)
        found += [(path, name, occurrence) for occurrence in range(count)]
chosen = random.Random(int(sys.argv[2])).sample(found, min(int(sys.argv[1]), len(found)))
codes = [mutate_code(Path(path).read_text(), operators[name], occurrence) for path, name, occurrence in chosen]
mutants = [{"path": path, "operator": name, "code": code} for (path, name, _), code in zip(chosen, codes)]
print(json.dumps({"all": len(found), "mutants": mutants}))
"""


@dataclass(frozen=True)
class Mutant:
    """A file with one mistake, and the line on which it is."""

    path: str
    operator: str
    code: str
    line: int
    before: str
    after: str


def main() -> None:
    """Take the sample, test each mutant, and write bench/results/mutants.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    total, mutants = _sample(arguments.sample, arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        checkouts: Queue[Path] = Queue()
        for number in range(WORKERS):
            checkouts.put(_copy(Path(scratch) / str(number)))
        chosen = ["-m", "not slow"] if arguments.quick else []
        tests = _tests_by_line(Path(scratch) / "0", chosen)

        def outcome(mutant: Mutant) -> dict[str, Any]:
            checkout = checkouts.get()
            try:
                return _test(mutant, checkout, chosen, tests.get((mutant.path, mutant.line), []))
            finally:
                checkouts.put(checkout)

        with ThreadPoolExecutor(WORKERS) as pool:
            results = list(pool.map(outcome, mutants))
    noticed = sum(result["noticed"] for result in results)
    print(f"{noticed} of {len(results)} mutants were noticed: {noticed / len(results):.1%}")
    write_result("mutants", {**vars(arguments), "all": total, "noticed": noticed, "mutants": results})


def _sample(size: int, seed: int) -> tuple[int, list[Mutant]]:
    paths = [str(p) for layer in LAYERS for p in sorted(Path("components/shared", layer).rglob("*.py"))]
    python = ".venv-mutants/bin/python"
    command = [python, "-c", ENUMERATE, str(size), str(seed), *paths]
    found = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    return found["all"], [_mutant(**mutant) for mutant in found["mutants"] if mutant["code"]]


def _mutant(path: str, operator: str, code: str) -> Mutant:
    before, after = (ROOT / path).read_text().splitlines(), code.splitlines()
    changed = next(n for n, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1])
    return Mutant(path, operator, code, changed + 1, before[changed].strip(), after[changed].strip())


def _copy(folder: Path) -> Path:
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        folder.mkdir(exist_ok=True)
        copy(ROOT / name, folder / name)
    return folder


def _tests_by_line(checkout: Path, chosen: list[str]) -> dict[tuple[str, int], list[str]]:
    """Return the ids of the tests that reach each line, from one run of all with coverage."""
    options = ["--cov=components", "--cov-context=test", "--cov-report=", "-q", "-n", str(WORKERS), "--dist=loadfile"]
    subprocess.run([sys.executable, "-m", "pytest", *options, *chosen, *TESTS], cwd=checkout, check=False)
    found = defaultdict(set)
    with sqlite3.connect(checkout / ".coverage") as database:
        files = {
            number: str(Path(path).relative_to(checkout))
            for number, path in database.execute("select id, path from file")
        }
        contexts = dict(database.execute("select id, context from context"))
        for file, context, bits in database.execute("select file_id, context_id, numbits from line_bits"):
            test = contexts[context].partition("|")[0]
            for line in (8 * i + bit for i, byte in enumerate(bits) for bit in range(8) if byte >> bit & 1):
                if test:
                    found[files[file], line].add(test)
    return {place: sorted(tests) for place, tests in found.items()}


def _test(mutant: Mutant, checkout: Path, chosen: list[str], tests: list[str]) -> dict[str, Any]:
    """Run the tests that reach a mutant's line or, if that runs at import, those of its layer."""
    path = checkout / mutant.path
    layer = mutant.path.split("/")[2]
    original = path.read_text()
    path.write_text(mutant.code)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        *chosen,
        *(tests or [f"tests/{layer}"]),
    ]
    try:
        code = subprocess.run(
            command, cwd=checkout, timeout=SECONDS, capture_output=True, env=os.environ, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        code = -1
    finally:
        path.write_text(original)
    facts = {name: getattr(mutant, name) for name in ("path", "line", "operator", "before", "after")}
    print(f"{'noticed ' if code else 'SURVIVED'} {mutant.path}:{mutant.line} {mutant.after}", flush=True)
    return {**facts, "tests": len(tests), "noticed": code != 0}


if __name__ == "__main__":
    main()
