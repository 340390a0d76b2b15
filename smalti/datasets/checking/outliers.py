"""Which cameras disagree with the others, by medians of medians, so that good sets give no false alarm.

A camera is judged by the middle of its errors against each of its neighbours, not by their mean: one bad neighbour
spoils only that neighbour's pair. The worst camera is taken out, its pairs with it, until nobody stands out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

LEAST_ERROR = 1.2
"""Below this nobody is an outlier, pixels of a 1000 pixels wide picture (a good calibration reaches 0.1 to 0.9)."""
ONE_WITNESS = 2.5
"""A camera that only one other has matches with must exceed the limit this many times: the other may be wrong."""
CONTRAST = 3.0
"""An outlier's error is at least this many times the typical one."""
SPREADS = 6.0
"""... and this many standard deviations (from the median absolute deviation) above it."""
NONSENSE = 10.0
"""A typical error above this means that the calibration as a whole is wrong, pixels at 1000 pixels width."""
DOUBTFUL = 2.0
"""A typical error above this deserves a warning."""


def threshold(errors: np.ndarray) -> float:
    """The error above which a camera stands out from the others."""
    errors = np.minimum(errors, 1e9)  # sightings behind a camera count as infinitely wrong
    typical = float(np.median(errors))
    deviation = 1.4826 * float(np.median(np.abs(errors - typical)))
    return max(LEAST_ERROR, CONTRAST * typical, typical + SPREADS * deviation)


def lower_median(values: list[float]) -> float:
    """The middle value, the smaller one of two: with two neighbours, one bad one does no harm."""
    return sorted(values)[(len(values) - 1) // 2]


def camera_errors(pairs: Mapping[tuple[int, int], float], without: set[int]) -> dict[int, float]:
    """Each camera's middle error over its pairs, those with cameras in `without` left out."""
    collected: dict[int, list[float]] = {}
    for (first, second), error in pairs.items():
        if first not in without and second not in without:
            collected.setdefault(first, []).append(error)
            collected.setdefault(second, []).append(error)
    return {row: lower_median(errors) for row, errors in collected.items()}


def outliers_of_pairs(pairs: Mapping[tuple[int, int], float]) -> list[tuple[int, float]]:
    """Rows and errors of the cameras that disagree, from the median error of each pair. Worst first."""
    found: list[tuple[int, float]] = []
    removed: set[int] = set()
    while True:
        errors = camera_errors(pairs, removed)
        if len(errors) < 3:
            return found
        limit = threshold(np.array(list(errors.values())))
        partners = Counter(row for pair in pairs if not removed & set(pair) for row in pair)
        errors = {row: error / (ONE_WITNESS if partners[row] < 2 else 1.0) for row, error in errors.items()}
        # Equal middles (two cameras whose only pair is shared): the sum over all pairs tells who is to blame.
        total = {row: sum(min(e, 50.0 * limit) for pair, e in pairs.items() if row in pair) for row in errors}
        worst = max(errors, key=lambda row: (errors[row], total[row]))
        if errors[worst] <= limit or len(found) >= max(1, len(errors) // 3):
            return found
        found.append((worst, errors[worst] * (ONE_WITNESS if partners[worst] < 2 else 1.0)))
        removed.add(worst)


def outliers_of_views(errors: Mapping[int, float]) -> list[tuple[int, float]]:
    """Rows and errors of the views whose own error stands out. Worst first."""
    if len(errors) < 3:
        return []
    limit = threshold(np.array(list(errors.values())))
    found = [(row, error) for row, error in errors.items() if error > limit]
    return sorted(found, key=lambda item: -item[1])
