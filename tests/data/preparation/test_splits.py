"""Stratified splits are exact, depend on the seed only, and leave the source's own splits unchanged."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from components.shared.data.preparation.splits import TEST, TRAIN, VAL, Splitter


def assign(
    labels: NDArray[np.int32],
    splits: NDArray[np.uint8],
    *,
    seed: int = 0,
    fractions: tuple[float, float] = (0.1, 0.2),
    block: int = 100,
) -> NDArray[np.uint8]:
    counts = np.zeros((3, labels.max() + 1), np.int64)
    np.add.at(counts, (splits, labels), 1)
    splitter = Splitter(counts, {VAL: fractions[0], TEST: fractions[1]}, seed)
    parts = range(0, len(labels), block)
    return np.concatenate([splitter.assign(labels[i : i + block], splits[i : i + block]) for i in parts])


def source(*shares: int, seed: int = 0) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Return labels and splits of a source: `shares` images of each class, shuffled, all of them training images."""
    labels = np.repeat(np.arange(len(shares), dtype=np.int32), shares)
    np.random.default_rng(seed).shuffle(labels)
    return labels, np.full(len(labels), TRAIN, np.uint8)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    shares=st.lists(st.integers(2, 300), min_size=1, max_size=5),
    fractions=st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)),
    block=st.integers(1, 400),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_class_gives_its_exact_share(
    shares: list[int], fractions: tuple[float, float], block: int, seed: int
) -> None:
    labels, splits = source(*shares)
    assigned = assign(labels, splits, seed=seed, fractions=fractions, block=block)
    for label, share in enumerate(shares):
        test = min(share - 1, max(1, int(share * fractions[1] + 0.5)))
        val = min(max(share - test - 1, 0), max(1, int((share - test) * fractions[0] + 0.5)))
        found = [(assigned[labels == label] == split).sum() for split in (TRAIN, VAL, TEST)]
        assert found == [share - test - val, val, test]


def test_last_image_of_a_class_stays_in_training() -> None:
    labels, splits = source(50, 1)
    assert assign(labels, splits)[labels == 1].tolist() == [TRAIN]


def test_splits_of_the_source_are_unchanged() -> None:
    labels, splits = source(100, 100)
    splits[:40], splits[40:60] = TEST, VAL
    np.testing.assert_array_equal(assign(labels, splits), splits)


def test_validation_split_comes_from_training_only() -> None:
    labels, splits = source(100, 100)
    splits[150:] = TEST
    assigned = assign(labels, splits)
    assert ((assigned == TEST) == (splits == TEST)).all()
    assert (assigned == VAL).sum() == pytest.approx(15, abs=1)


def test_only_the_seed_decides() -> None:
    labels, splits = source(200, 200)
    np.testing.assert_array_equal(assign(labels, splits, seed=3), assign(labels, splits, seed=3))
    assert (assign(labels, splits, seed=3) != assign(labels, splits, seed=4)).any()


@pytest.mark.slow
def test_every_image_is_as_likely_to_be_held_out() -> None:
    labels, splits = source(60)
    rounds = 2000
    held_out = sum((assign(labels, splits, seed=seed, block=25) == TEST).astype(int) for seed in range(rounds))
    share = held_out / rounds  # standard deviation of each: sqrt(0.2 * 0.8 / 2000) = 0.009
    assert np.abs(share - 0.2).max() < 5 * 0.009
