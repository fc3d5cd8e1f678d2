"""Champions and decisions in a registry document: pytest tests/registry/test_champion.py"""

import pytest

from components.shared.registry.champion import add_decision, decision_about, previous_champion, times_decided
from components.shared.registry.document import Action, RegistryDocument, VersionEntry
from tests.small_packages import figures_of

SPLIT = "a" * 64


def entry(number: int, pruned: tuple[int, ...]) -> VersionEntry:
    return VersionEntry(
        version=number,
        package_digest=f"{number:064x}",
        created="2026-01-01T00:00:00+00:00",
        state="pruned" if number in pruned else "complete",
        accuracy=0.5,
        images=10,
        test_split_digest=SPLIT,
        model_digest="b" * 64,
        run_id="run",
    )


def registry(*decisions: tuple[Action, int, int], pruned: tuple[int, ...] = ()) -> RegistryDocument:
    """Return a document with three versions after decisions: action, version, champion after it."""
    versions = [entry(number, pruned) for number in range(1, 4)]
    document = RegistryDocument(name="m", champion=None, versions=versions, decisions=[])
    for action, version, champion in decisions:
        figures = figures_of() if action == "register" and document.champion else None
        add_decision(document, action, versions[version - 1], champion, figures, "")
    return document


FIRST: tuple[Action, int, int] = ("register", 1, 1)
SECOND: tuple[Action, int, int] = ("register", 2, 2)
THIRD: tuple[Action, int, int] = ("register", 3, 3)


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
    decisions: list[tuple[Action, int, int]], pruned: tuple[int, ...], expected: int | None
) -> None:
    assert previous_champion(registry(*decisions, pruned=pruned)) == expected


def test_a_decision_records_the_champion_before_and_after() -> None:
    document = registry(FIRST, SECOND)
    assert document.champion == 2
    assert [(d.champion_before, d.champion_after) for d in document.decisions] == [(None, 1), (1, 2)]


def test_only_a_registration_decides_about_a_version() -> None:
    document = registry(FIRST, SECOND, ("promote", 1, 1))
    assert decision_about(document, 1) is document.decisions[0]
    assert decision_about(document, 3) is None


def test_only_comparisons_on_the_same_test_split_are_counted() -> None:
    decisions = registry(FIRST, SECOND, THIRD, ("promote", 1, 1)).decisions
    assert times_decided(decisions, SPLIT) == 2
    assert times_decided(decisions, "b" * 64) == 0
