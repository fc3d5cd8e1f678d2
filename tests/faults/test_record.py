"""The table of faults in the documentation, and the record that it counts."""

import json
import re
from collections import Counter

from tests.conftest import ROOT
from tests.faults.record import KINDS, RESULTS


def test_the_documentation_counts_what_was_recorded() -> None:
    counts = Counter(json.loads(line)["fault"] for line in RESULTS.read_text().splitlines())
    text = (ROOT / "docs" / "benchmarks.md").read_text().partition("## Faults")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([a-z ]+) \| [^|]+ \| ([^|]+) \| (\d+) \|$", text, re.MULTILINE)
    assert {kind: (right, int(count)) for kind, right, count in rows} == {
        kind: (right, counts[kind]) for kind, right in KINDS.items()
    }
