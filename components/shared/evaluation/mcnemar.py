"""McNemar's test: which of two classifiers is better on the same images, and by more than chance?"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class McNemar(NamedTuple):
    """Two classifiers on the same images: the second alone has `n01` of them right, the first alone `n10`.

    `p_value` is the probability of a difference at least as large as theirs if both were equally good.
    """

    n01: int
    n10: int
    p_value: float


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """Compare two classifiers by the images that each has right (bool, N): exact, two-sided.

    McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 12 (1947). Two good classifiers differ in few images, so the binomial distribution itself is used.
    """
    n01, n10 = int((~first & second).sum()), int((first & ~second).sum())
    discordant, tail, ways = n01 + n10, 0, 1
    for successes in range(min(n01, n10) + 1):
        tail += ways  # of all 2 ** discordant outcomes, those with at most this many successes
        ways = ways * (discordant - successes) // (successes + 1)
    return McNemar(n01, n10, min(1.0, 2 * tail / 2**discordant))
