"""The comparisons of two samples: by hand, and what they find where there is nothing and something."""

import numpy as np
import pytest

from components.shared.prediction.two_samples import (
    compare_classes,
    compare_numbers,
    compare_vectors,
    holm,
    psi,
)

RANDOM = np.random.default_rng(0)


def test_psi_by_hand() -> None:
    shares, others = np.array([20.5, 20.5]) / 41, np.array([30.5, 10.5]) / 41
    expected = float(((shares - others) * np.log(shares / others)).sum())
    assert psi(np.array([20, 20]), np.array([30, 10])) == pytest.approx(expected)
    assert psi(np.array([7, 0, 3]), np.array([7, 0, 3])) == 0
    assert np.isfinite(psi(np.array([100, 0]), np.array([0, 100])))


def test_p_values_are_corrected_as_holm_did() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1] and holm([]) == []


def test_the_intervals_hold_the_truth_nearly_always() -> None:
    """Bins whose true PSI is known, and normal numbers whose distribution functions are known to be 0.197 apart."""
    p, q = np.full(4, 0.25), np.array([0.4, 0.3, 0.2, 0.1])
    truth, held = float(((p - q) * np.log(p / q)).sum()), 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        counts = random.multinomial(2000, p), random.multinomial(500, q)
        numbers = random.normal(0, 1, 2000).astype(np.float32), random.normal(0.5, 1, 500).astype(np.float32)
        found = compare_numbers((counts[0], numbers[0]), (counts[1], numbers[1]), seed)
        held += found.psi.low <= truth <= found.psi.high
        assert found.effect.low <= 0.197 <= found.effect.high
    assert 90 <= held <= 99


def test_equal_classes_do_not_differ_and_others_do() -> None:
    counts = np.array([500, 300, 200, 1, 0])
    same = compare_classes(counts, counts, 0)
    assert same.p_value == pytest.approx(1) and same.psi.value == same.psi.low == same.effect.value == 0
    other = compare_classes(counts, np.array([200, 300, 500, 0, 1]), 0)
    assert other.p_value < 1e-30 and other.effect.value == pytest.approx(0.301, abs=0.001)
    assert other.psi.low > 0.4 and other.effect.low > 0.25


def test_one_class_alone_is_no_difference() -> None:
    assert compare_classes(np.array([100, 0]), np.array([200, 0]), 0).p_value == 1


def test_a_few_pictures_of_rare_classes_are_no_drift() -> None:
    """Each of 300 classes is expected once: chance leaves a third of them out, and the PSI is large."""
    reference, new = RANDOM.multinomial(3000, np.full(300, 1 / 300)), RANDOM.multinomial(300, np.full(300, 1 / 300))
    found = compare_classes(reference, new, 0)
    assert found.psi.value > 0.2 and found.p_value > 0.05


def test_rare_classes_count_as_one() -> None:
    from scipy.stats import chi2_contingency  # which takes half a second

    counts = np.array([900, 80, *[1] * 20]), np.array([88, 7, *[1, 0, 0, 0] * 5])
    pooled = [[900, 80, 20], [88, 7, 5]]
    expected = chi2_contingency(pooled, correction=False).pvalue
    assert expected < 0.2 and compare_classes(*counts, 0).p_value == pytest.approx(expected)


def test_a_classifier_tells_apart_what_differs() -> None:
    reference = RANDOM.normal(0, 1, (400, 30)).astype(np.float32)
    reference[:, 3] = 0  # as a pixel that is always black
    same = RANDOM.normal(0, 1, (300, 30)).astype(np.float32)
    same[:, 3] = 0
    found = compare_vectors(reference, same, 0)
    assert found.effect.low < 0.5 < found.effect.high and found.p_value > 0.05
    found = compare_vectors(reference, same + np.float32(0.3), 0)
    assert found.effect.low > 0.6 and found.p_value < 1e-6 and found.psi.low > 0.2
    found = compare_vectors(reference, same + np.float32(100), 0)
    assert found.effect.value == 1 and np.isfinite(found.psi.value)
