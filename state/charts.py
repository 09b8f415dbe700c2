"""Charts: the most popular videos by each half-life, made anew now and then instead of for every list.

Flows in: counts of the replica. Flows out: rows, most popular first. Always holds: a chart is made when a fixed number of
positives has been applied since the last one, and at no other moment, so that two replays see the same ones. Bound: LENGTH rows
a chart.
"""

import numpy as np

from online_models.popularity import HALF_LIVES, Popularity
from state.types import BoolArray, Float32Array, Int32Array

#: Rows of a chart: most are seen by somebody who has seen many, and 50 must be left.
LENGTH = 1_000
#: Positives after which charts are made anew, at least; with many videos it is a share of their number, which is what it costs.
EVERY = 50
EVERY_SHARE = 0.02


class Charts:
    """Rows by popularity."""

    def __init__(self) -> None:
        #: By each half-life of positives, and by what was shown lately; most popular first.
        self.most: list[Int32Array] = [np.empty(0, np.int32)] * (len(HALF_LIVES) + 1)
        self._waiting = 0

    def note(self, positives: int) -> None:
        """So many positives were applied."""
        self._waiting += positives

    def due(self, n: int) -> bool:
        """Whether it is time to make them anew, for `n` rows."""
        return self._waiting >= max(EVERY, EVERY_SHARE * n) or (self._waiting > 0 and not len(self.most[0]))

    def make(self, popularity: Popularity, active: BoolArray, ticks: float) -> None:
        """Make them as of `ticks`.

        Parameters
        ----------
        active : bool, shape (n,); what may be recommended
        """
        self._waiting = 0
        n = len(active)
        levels = popularity.levels(ticks, n)
        shown = popularity.shown_lately(ticks, n)
        self.most = [_most(level, active) for level in (*levels.T, shown)]


def _most(level: Float32Array, active: BoolArray) -> Int32Array:
    rows = np.flatnonzero(active & (level > 0))
    if len(rows) > LENGTH:
        rows = rows[np.argpartition(-level[rows], LENGTH - 1)[:LENGTH]]
    return rows[np.argsort(-level[rows], kind="stable")].astype(np.int32)
