"""Champions and decisions in a registry document: pytest tests/registry/test_champion.py"""

import pytest

from components.shared.core.files import Document
from components.shared.registry.champion import add_decision, decision_about, previous_champion, times_decided

SPLIT = "a" * 64


def registry(*decisions: tuple[str, int, int], pruned: tuple[int, ...] = ()) -> Document:
    """Return a document with three versions after decisions: action, version, champion after it."""
    document: Document = {"champion": None, "versions": [], "decisions": []}
    for number in range(1, 4):
        state = "pruned" if number in pruned else "complete"
        document["versions"].append({"version": number, "state": state, "test_split_digest": SPLIT})
    for action, version, champion in decisions:
        figures = {"n01": 1} if action == "register" and document["champion"] else None
        add_decision(document, action, document["versions"][version - 1], champion, figures, "")
    return document


FIRST, SECOND, THIRD = ("register", 1, 1), ("register", 2, 2), ("register", 3, 3)


@pytest.mark.parametrize(
    ("decisions", "pruned", "expected"),
    [
        ([], (), None),
        ([FIRST], (), None),
        ([FIRST, SECOND], (), 1),
        ([FIRST, SECOND, THIRD], (), 2),
        ([FIRST, SECOND, THIRD], (2,), 1),
        ([FIRST, ("register", 2, 1)], (), None),  # version 2 was refused
        ([FIRST, SECOND, THIRD, ("rollback", 2, 2)], (), 1),  # not 3, from which the rollback went back
        ([FIRST, SECOND, ("rollback", 1, 1)], (), None),
        ([FIRST, SECOND, ("promote", 1, 1)], (), 2),
    ],
)
def test_a_rollback_restores_the_previous_champion(
    decisions: list[tuple[str, int, int]], pruned: tuple[int, ...], expected: int | None
) -> None:
    assert previous_champion(registry(*decisions, pruned=pruned)) == expected


def test_a_decision_records_the_champion_before_and_after() -> None:
    document = registry(FIRST, SECOND)
    assert document["champion"] == 2
    assert [(d["champion_before"], d["champion_after"]) for d in document["decisions"]] == [(None, 1), (1, 2)]


def test_only_a_registration_decides_about_a_version() -> None:
    document = registry(FIRST, SECOND, ("promote", 1, 1))
    assert decision_about(document, 1) is document["decisions"][0]
    assert decision_about(document, 3) is None


def test_only_comparisons_on_the_same_test_split_are_counted() -> None:
    decisions = registry(FIRST, SECOND, THIRD, ("promote", 1, 1))["decisions"]
    assert times_decided(decisions, SPLIT) == 2
    assert times_decided(decisions, "b" * 64) == 0
