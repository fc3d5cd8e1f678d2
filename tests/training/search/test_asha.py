"""Trials that stop when they fall behind others: pytest tests/training/search/test_asha.py"""

import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from components.shared.models.document import Epoch
from components.shared.storage.client import Store, open_store
from components.shared.training.search.asha import SuccessiveHalving, is_rung, should_continue
from tests.models.documents import epoch
from tests.servers.s3_server import BUCKET, S3Server


@pytest.mark.parametrize(
    ("own", "others", "reduction", "expected"),
    [
        (0.1, [], 3, True),  # the first continues
        (0.1, [0.2], 3, False),  # of few, only the best
        (0.2, [0.1], 3, True),
        (0.2, [0.2], 3, True),  # as good as the best
        (0.8, [0.9, 0.1, 0.2, 0.3, 0.4], 3, True),  # second of six: two continue
        (0.4, [0.9, 0.8, 0.1, 0.2, 0.3], 3, False),
        (0.5, [0.9, 0.8, 0.7], 2, False),
        (0.8, [0.9, 0.1, 0.2], 2, True),
    ],
)
def test_the_best_share_continues(own: float, others: list[float], reduction: int, expected: bool) -> None:
    assert should_continue(own, others, reduction) is expected


def test_rungs_grow_by_the_reduction() -> None:
    assert [n for n in range(1, 60) if is_rung(n, 2, 3)] == [2, 6, 18, 54]
    assert [n for n in range(1, 17) if is_rung(n, 1, 2)] == [1, 2, 4, 8, 16]


@pytest.fixture
def store(server: S3Server, tmp_path: Path) -> Store:
    return open_store(f"s3://{BUCKET}/{tmp_path.name}", server.environment)


def _epochs(*accuracies: float) -> Sequence[Epoch]:
    return [epoch(number, val_accuracy=accuracy) for number, accuracy in enumerate(accuracies, 1)]


def _halving(store: Store, trial: str, **changed: Any) -> SuccessiveHalving:
    return SuccessiveHalving(
        store, **{"sweep": "s", "trial": trial, "epochs": 27, "first_rung": 1, "reduction": 3, **changed}
    )


@pytest.mark.slow
def test_a_trial_that_falls_behind_stops_and_is_recorded(store: Store) -> None:
    assert _halving(store, "1")(_epochs(0.5)) is None
    reason = _halving(store, "2")(_epochs(0.4))
    assert reason == "40.00% validation accuracy up to epoch 1 is not among the best 1/3 of 2 trials"
    rung = json.loads(store.get_bytes("sweeps/s/1/2.json")[0])
    assert (rung["val_accuracy"], rung["trials"], rung["reason"]) == (0.4, 2, reason)
    assert _halving(store, "3", sweep="another")(_epochs(0.1)) is None


@pytest.mark.slow
def test_the_best_epoch_so_far_counts_and_only_at_a_rung(store: Store) -> None:
    assert _halving(store, "1")(_epochs(0.5, 0.6, 0.7)) is None
    assert _halving(store, "2")(_epochs(0.1, 0.2)) is None, "no rung"
    assert _halving(store, "2")(_epochs(0.1, 0.8, 0.3)) is None
    assert _halving(store, "3")(_epochs(0.1, 0.2, 0.3)) is not None


@pytest.mark.slow
def test_the_last_epoch_stops_nothing_but_is_recorded(store: Store) -> None:
    assert _halving(store, "1")(_epochs(0.9)) is None
    assert _halving(store, "2", epochs=1)(_epochs(0.1)) is None
    assert [entry.name for entry in store.list("sweeps/s/1")] == ["sweeps/s/1/1.json", "sweeps/s/1/2.json"]


@pytest.mark.slow
def test_a_repeated_trial_decides_as_before(store: Store) -> None:
    assert _halving(store, "1")(_epochs(0.5)) is None
    assert _halving(store, "2")(_epochs(0.9)) is None
    assert _halving(store, "1")(_epochs(0.5)) is None, "the second was unknown then"
    assert _halving(store, "1")(_epochs(0.4)) is not None, "a different training"


@pytest.mark.slow
def test_a_trial_killed_before_its_decision_decides_later(store: Store) -> None:
    undecided = {"format": "torch2kubeflow/rung", "val_accuracy": 0.4, "trials": None, "reason": None}
    store.put_bytes(json.dumps(undecided).encode(), "sweeps/s/1/2.json")
    assert _halving(store, "1")(_epochs(0.5)) is None
    assert _halving(store, "2")(_epochs(0.4)) is not None


@pytest.mark.slow
def test_of_simultaneous_trials_the_best_and_few_others_continue(store: Store) -> None:
    count = 12
    start = threading.Barrier(count, timeout=300)
    found: dict[int, str | None] = {}

    def run(number: int) -> None:
        halving = _halving(store, str(number))
        start.wait()
        found[number] = halving(_epochs(number / 100))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[count - 1] is None
    seen = [json.loads(store.get_bytes(f"sweeps/s/1/{number}.json")[0]) for number in range(count)]
    assert max(rung["trials"] for rung in seen) == count, "the last one sees all"
    for number, rung in enumerate(seen):
        assert rung["reason"] == found[number]
        at_most = sum(other > number for other in range(count))  # that are better and may have been seen
        assert found[number] is None or at_most >= max(1, rung["trials"] // 3)
    assert sum(reason is None for reason in found.values()) < count


@pytest.fixture
def unreachable() -> Iterator[Store]:
    variables = {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    yield open_store("s3://bucket", variables, attempts=1)


def test_an_unreachable_store_stops_no_trial(unreachable: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert _halving(unreachable, "1")(_epochs(0.1)) is None
    assert "[log] continuing after epoch 1, because the other trials could not be compared: " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"{}", b'{"format": "torch2kubeflow/rung", "val_accuracy": "high"}', b"\xff"])
def test_an_invalid_rung_stops_no_trial(store: Store, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    store.put_bytes(content, "sweeps/s/1/9.json")
    assert _halving(store, "1")(_epochs(0.1)) is None
    assert "sweeps/s/1/9.json" in capsys.readouterr().out
