"""Two samples compared: how far they are apart, with an interval of 95 %, and how likely chance alone does that.

The reference always comes first. Distances are population stability indices (PSI): the sum over bins of the difference
of two shares times the logarithm of their ratio; 0 means equal. Lewis, "An Introduction to Credit Scoring" (1994).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.shared.evaluation.metrics import Z_95

RESAMPLES = 1000
LOW, HIGH = 2.5, 97.5  # percentiles
FEWEST = 5  # pictures that a class needs to be compared on its own
SHRINKAGE = 0.1  # of the discriminant's correlations

Counts = NDArray[np.int64]
Rows = NDArray[np.float32]


class Interval(NamedTuple):
    """A figure and its interval."""

    value: float
    low: float
    high: float


class Comparison(NamedTuple):
    """How far two samples are apart: as PSI, as the figure of a test, and the test's p-value."""

    psi: Interval
    effect: Interval
    p_value: float


def compare_numbers(reference: tuple[Counts, Rows], new: tuple[Counts, Rows], seed: int) -> Comparison:
    """Compare a number by the histograms of all pictures, and by the values of some.

    The p-value is that of the Kolmogorov-Smirnov test. Its figure, the largest distance of the two distribution
    functions, has the interval of the inequality of Dvoretzky, Kiefer and Wolfowitz with Massart's constant (Annals of
    Probability 18, 1990), which holds for any distribution and is wider than most need.
    """
    from scipy.stats import ks_2samp

    (counts, values), (new_counts, new_values) = reference, new
    found = ks_2samp(values, new_values, method="asymp")
    distance, beyond = (
        float(found.statistic),
        sum((np.log(4 / 0.05) / (2 * len(v))) ** 0.5 for v in (values, new_values)),
    )
    effect = Interval(distance, max(0.0, distance - beyond), min(1.0, distance + beyond))
    return Comparison(_bootstrap(psi, counts, new_counts, seed), effect, float(found.pvalue))


def compare_classes(reference: Counts, new: Counts, seed: int) -> Comparison:
    """Compare how often each class is predicted.

    The p-value is that of the chi-squared test of homogeneity, for which rare classes count as one. The figure is the
    share of pictures that would need another class to make both equal (total variation distance).
    """
    from scipy.stats import chi2_contingency

    table = np.stack([reference, new])
    is_rare = table.sum(axis=0) * table.sum(axis=1).min() < FEWEST * table.sum()
    pooled = np.column_stack([table[:, ~is_rare], table[:, is_rare].sum(axis=1)])
    pooled = pooled[:, pooled.any(axis=0)]
    p_value = float(chi2_contingency(pooled, correction=False).pvalue) if pooled.shape[1] > 1 else 1.0
    effect = _bootstrap(_total_variation, reference, new, seed)
    return Comparison(_bootstrap(psi, reference, new, seed), effect, p_value)


def compare_vectors(reference: Rows, new: Rows, seed: int) -> Comparison:
    """Compare whole vectors by a classifier two-sample test: can a classifier tell which sample a vector is of?

    Lopez-Paz and Oquab, "Revisiting classifier two-sample tests", ICLR 2017. The classifier is Fisher's linear
    discriminant, trained on one half of each sample. Its scores of the other halves give the area under the ROC curve
    (0.5 if it cannot tell), of which Mann and Whitney's test is one-sided; the interval is that of Hanley and McNeil
    (Radiology 143, 1982). As the PSI counts that of two normal distributions with this area, 2 z(area)^2.
    """
    from scipy.stats import mannwhitneyu, norm

    random = np.random.default_rng(seed)
    halves = [np.array_split(sample[random.permutation(len(sample))], 2) for sample in (reference, new)]
    scores, new_scores = (second @ _discriminant(halves[0][0], halves[1][0]) for _, second in halves)
    found = mannwhitneyu(new_scores, scores, alternative="greater", method="asymptotic")
    pairs = len(scores) * len(new_scores)
    area = float(found.statistic) / pairs
    squares = (len(new_scores) - 1) * (area / (2 - area) - area**2)
    squares += (len(scores) - 1) * (2 * area**2 / (1 + area) - area**2)
    beyond = Z_95 * ((area * (1 - area) + squares) / pairs) ** 0.5
    effect = Interval(area, max(0.0, area - beyond), min(1.0, area + beyond))
    z = norm.ppf(np.clip(effect, 0.5, 1 - 0.5 / pairs))
    return Comparison(Interval(*(2 * z**2).tolist()), effect, float(found.pvalue))


def holm(p_values: list[float]) -> list[float]:
    """Return p-values corrected for their number: with all below 0.05, one of them is wrong in 5 % of cases at most.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979).
    """
    order = np.argsort(p_values)
    scaled = np.sort(p_values) * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return [float(value) for value in corrected]


def psi(reference: Counts, new: Counts) -> NDArray[np.float64]:
    """Return the PSI of histograms (int64, ... x bins).

    To each bin half a picture is added, so that an empty one counts no more than its sample's size allows.
    """
    p, q = ((counts + 0.5) / (counts + 0.5).sum(axis=-1, keepdims=True) for counts in (reference, new))
    found: NDArray[np.float64] = ((p - q) * np.log(p / q)).sum(axis=-1)
    return found


def _total_variation(reference: Counts, new: Counts) -> NDArray[np.float64]:
    p, q = (counts / counts.sum(axis=-1, keepdims=True) for counts in (reference, new))
    found: NDArray[np.float64] = np.abs(p - q).sum(axis=-1) / 2
    return found


def _bootstrap(distance: Callable[[Counts, Counts], Any], reference: Counts, new: Counts, seed: int) -> Interval:
    """Return a distance of two histograms and its interval: percentiles of the bootstrap, without their bias.

    Resampled histograms are farther apart than the two are, by as much on average as these are than the truth. Efron
    and Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 10 and 13.
    """
    random, found = np.random.default_rng(seed), float(distance(reference, new))
    drawn = [random.multinomial(counts.sum(), counts / counts.sum(), RESAMPLES) for counts in (reference, new)]
    resampled = distance(*drawn)
    low, high = np.percentile(resampled, (LOW, HIGH)) - (resampled.mean() - found)
    return Interval(found, max(0.0, float(low)), max(0.0, float(high)))


def _discriminant(reference: Rows, new: Rows) -> NDArray[np.float64]:
    """Return the weights of Fisher's linear discriminant of two samples (float32, N x columns), larger for the new one.

    They are those of its columns scaled to the same deviation; the correlations are shrunk, since vectors may be few.
    """
    deviation = np.concatenate([reference, new]).std(axis=0, dtype=np.float64)
    scale = np.where(deviation > 0, deviation, 1)
    scaled = [sample / scale for sample in (reference, new)]
    within = np.concatenate([sample - sample.mean(axis=0) for sample in scaled])
    covariance = within.T @ within / len(within) + SHRINKAGE * np.eye(within.shape[1])
    weights: NDArray[np.float64] = np.linalg.solve(covariance, scaled[1].mean(axis=0) - scaled[0].mean(axis=0)) / scale
    return weights
