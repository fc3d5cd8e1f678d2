"""The share of small mistakes that the tests notice: `python bench/mutants.py` (an hour; needs an idle machine).

Makes every mutation of cosmic-ray in the layers storage, data, training and registry, takes 300 of them by a fixed
seed, and runs for each the tests that reach its line, the fastest files first, of those that pass without it: two
minutes of tests, so that the share is a lower bound. A mutant is noticed if a test fails or does not end. The
environment of cosmic-ray is `make .venv-mutants/.ready`, from requirements-mutants.txt.

python bench/mutants.py --sample 20 --seed 1    # another, smaller sample
python bench/mutants.py --quick                 # only by the tests of `make test-quick`: a lower bound, in minutes
"""

import argparse
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
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
TEST_SECONDS = 120  # of tests for a mutant, by the time that they take without it
START_SECONDS = 60
ENUMERATE = """
import json, random, sys
from contextlib import suppress
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
random.Random(int(sys.argv[2])).shuffle(found)
count_all, mutants = len(found), []
while found and len(mutants) < int(sys.argv[1]):
    path, name, occurrence = found.pop()
    with suppress(AttributeError):  # cosmic-ray cannot replace an exception whose name has a dot
        code = mutate_code(Path(path).read_text(), operators[name], occurrence)
        mutants += [{"path": path, "operator": name, "code": code}] if code else []
print(json.dumps({"all": count_all, "mutants": mutants}))
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
        seconds, tests = _measure_tests(Path(scratch) / "0", chosen)

        def outcome(mutant: Mutant) -> dict[str, Any]:
            checkout = checkouts.get()
            try:
                return _test(mutant, checkout, _fastest(tests[mutant.path, mutant.line], seconds), seconds)
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
    found = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return found["all"], [_mutant(**mutant) for mutant in found["mutants"]]


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


def _measure_tests(
    checkout: Path, chosen: list[str]
) -> tuple[dict[str, float], defaultdict[tuple[str, int], set[str]]]:
    """Run all tests; return the seconds of each that passes, and the tests that reach each line."""
    options = ["--cov=components", "--cov-context=test", "--cov-report=", "-q", "-n", str(WORKERS), "--dist=loadfile"]
    report = ["--junitxml=report.xml", "-o", "junit_family=xunit1"]
    subprocess.run([sys.executable, "-m", "pytest", *options, *report, *chosen, *TESTS], cwd=checkout, check=False)
    cases = ElementTree.parse(checkout / "report.xml").iter("testcase")
    seconds = {f"{case.get('file')}::{case.get('name')}": float(case.get("time", 0)) for case in cases if not len(case)}
    reached = defaultdict(set)
    with sqlite3.connect(checkout / ".coverage") as database:
        files = dict(database.execute("select id, path from file"))
        contexts = dict(database.execute("select id, context from context"))
        for file, context, bits in database.execute("select file_id, context_id, numbits from line_bits"):
            test = contexts[context].partition("|")[0]
            for line in (8 * i + bit for i, byte in enumerate(bits) for bit in range(8) if byte >> bit & 1):
                reached[str(Path(files[file]).relative_to(checkout)), line].add(test)
    return seconds, reached


def _fastest(tests: set[str], seconds: dict[str, float]) -> list[str]:
    """Return tests of TEST_SECONDS in all, file by file, those first whose file takes the shortest time."""
    files = defaultdict(list)
    for test in sorted(tests & set(seconds)):
        files[test.partition("::")[0]].append(test)
    found: list[str] = []
    total = 0.0
    for group in sorted(files.values(), key=lambda group: sum(seconds[test] for test in group)):
        for test in sorted(group, key=lambda test: seconds[test]):
            total += seconds[test]
            if total <= TEST_SECONDS or not found:
                found.append(test)
    return found


def _test(mutant: Mutant, checkout: Path, tests: list[str], seconds: dict[str, float]) -> dict[str, Any]:
    """Run the tests that reach a mutant's line or, if that runs at import, the quick ones of its layer."""
    path = checkout / mutant.path
    chosen = tests or ["-m", "not slow", f"tests/{mutant.path.split('/')[2]}"]
    limit = START_SECONDS + 3 * (sum(seconds[test] for test in tests) or TEST_SECONDS)
    original = path.read_text()
    path.write_text(mutant.code)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *chosen]
    try:
        ran = subprocess.run(command, cwd=checkout, timeout=limit, capture_output=True, text=True, check=False)
        noticed = ran.returncode != 0 and "ERROR: not found" not in ran.stderr + ran.stdout
    except subprocess.TimeoutExpired:
        noticed = True
    finally:
        path.write_text(original)
    facts = {name: getattr(mutant, name) for name in ("path", "line", "operator", "before", "after")}
    print(f"{'noticed ' if noticed else 'SURVIVED'} {mutant.path}:{mutant.line} {mutant.after}", flush=True)
    return {**facts, "tests": len(tests), "noticed": noticed}


if __name__ == "__main__":
    main()
