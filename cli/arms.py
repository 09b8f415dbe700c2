"""Arms that an evaluation alone has, beside those of `state.arms`: counts that know every positive at once, and batch models.

Flows in: every first positive. Flows out: scores, and the names of all arms.
"""

import numpy as np

from state.arms import COMPONENTS
from state.types import Float64Array

#: Half-lives of the decayed baseline, in positive events; the best of them in the warm-up is the arm.
HALF_LIVES = (300.0, 3_000.0, 30_000.0)


class CountedPopularity:
    """The decayed baseline: counts that halve every `half_life` positive events of the whole stream."""

    def __init__(self) -> None:
        self._counts: Float64Array = np.zeros((len(HALF_LIVES), 1024))
        self._at: Float64Array = np.zeros((len(HALF_LIVES), 1024))
        self._clock = 0.0

    def learn(self, row: int) -> None:
        """One more positive for `row`."""
        if row >= self._counts.shape[1]:
            more = max(row + 1, 2 * self._counts.shape[1]) - self._counts.shape[1]
            self._counts = np.pad(self._counts, ((0, 0), (0, more)))
            self._at = np.pad(self._at, ((0, 0), (0, more)))
        self._clock += 1.0
        for h, half_life in enumerate(HALF_LIVES):
            age = self._clock - self._at[h, row]
            self._counts[h, row] = self._counts[h, row] * 2.0 ** (-age / half_life) + 1.0
            self._at[h, row] = self._clock

    def scores(self, which: int, n: int) -> Float64Array:
        """Counts of the first `n` rows with half-life number `which`, as of now."""
        out = np.zeros(n)
        known = min(n, self._counts.shape[1])
        age = self._clock - self._at[which, :known]
        out[:known] = self._counts[which, :known] * 2.0 ** (-age / HALF_LIVES[which])
        return out


DEFAULT = ("served", "popularity", "popularity_decayed", "item_knn", "mf")
REFITTED = {"ease_refit": "ease", "als_refit": "als"}
"""Arms of batch models, and what they are called when they are asked for."""
NAMES = (*DEFAULT, *(name for name in COMPONENTS if name not in DEFAULT), *REFITTED)
