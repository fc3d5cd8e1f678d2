"""Who is the champion of a model, and who was before: the decisions in its registry document, as pure functions."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from components.shared.registry.document import Action, Decision, Figures, RegistryDocument, VersionEntry


class Verdict(NamedTuple):
    """The result of judging a challenger: does it replace the champion, the figures (None if not compared), and why."""

    wins: bool
    figures: Figures | None
    reason: str


def now() -> str:
    """Return the current time in UTC, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def add_decision(
    registry: RegistryDocument,
    action: Action,
    entry: VersionEntry,
    champion: int | None,
    figures: Figures | None,
    reason: str,
) -> None:
    """Make version `champion` the champion and record why; `entry` is that of the version which was decided about."""
    decision = Decision(
        time=now(),
        action=action,
        version=entry.version,
        champion_before=registry.champion,
        champion_after=champion,
        test_split_digest=entry.test_split_digest,
        figures=figures,
        reason=reason,
    )
    registry.champion = champion
    registry.decisions.append(decision)


def decision_about(registry: RegistryDocument, version: int) -> Decision | None:
    """Return the decision made when a version was registered; None if it has not been made yet."""
    decisions = (d for d in registry.decisions if d.action == "register" and d.version == version)
    return next(decisions, None)


def times_decided(decisions: Sequence[Decision], test_split_digest: str) -> int:
    """Return how often a test split has decided between two versions."""
    return sum(d.test_split_digest == test_split_digest and d.figures is not None for d in decisions)


def previous_champion(registry: RegistryDocument) -> int | None:
    """Return the version that a rollback restores; None if no earlier champion still has its files."""
    complete = {entry.version for entry in registry.versions if entry.state == "complete"}
    earlier = [v for v in _champion_history(registry) if v in complete and v != registry.champion]
    return earlier[-1] if earlier else None


def _champion_history(registry: RegistryDocument) -> list[int]:
    """Return the successive champions, without those that a rollback undid."""
    history: list[int] = []
    for decision in registry.decisions:
        champion = decision.champion_after
        if decision.action == "rollback":
            while history and history[-1] != champion:
                history.pop()
        elif champion is not None and champion != decision.champion_before:
            history.append(champion)
    return history
