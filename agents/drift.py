"""Whether what served lists find has changed for good: a window that is as long as its mean has been the same.

Flows in: whether each scored positive was in the served list. Flows out: changes, with the shares before and after. Always holds:
memory grows with the logarithm of the window. The test is ADWIN's (Bifet and Gavaldà, "Learning from Time-Changing Data with Adaptive
Windowing", SDM 2007), as river has it.
"""

from typing import NamedTuple

# `river.drift` loads scipy.stats and SQLAlchemy for its other detectors: that was a third of a worker's start.
from river._river_rust.drift import AdaptiveWindowing

#: Probability with which a cut of a window whose mean has not changed is taken for a change. An hour has thousands of samples, and
#: each may be looked at: a day without changes should have none.
DELTA = 2e-4
DIRECTIONS = ("up", "down")
#: River's own: numbers between two looks, sizes of the window's parts, and numbers before the first look.
_WINDOW = {"clock": 32, "max_buckets": 5, "min_window_length": 5, "grace_period": 10}


class Change(NamedTuple):
    """A change of the mean.

    Attributes
    ----------
    direction : one of DIRECTIONS
    before, after : means of the window with the part that was given up, and without it
    """

    direction: str
    before: float
    after: float


class Drift:
    """The mean of a stream of numbers from 0 to 1, as long as it stays the same."""

    def __init__(self, delta: float = DELTA) -> None:
        self._delta = delta
        self._window = AdaptiveWindowing(delta=delta, **_WINDOW)
        self._changed = False
        #: Changes so far.
        self.changes = dict.fromkeys(DIRECTIONS, 0)

    @property
    def mean(self) -> float:
        """Of the window; 0 before anything came."""
        width = self._window.get_width()
        return float(self._window.get_total() / width) if width else 0.0

    def add(self, value: float) -> Change | None:
        """One more number; what has changed, if anything has."""
        before = self.mean
        if self._changed:
            # As river's ADWIN does: what was left of the window at a change is too short to judge by.
            self._window = AdaptiveWindowing(delta=self._delta, **_WINDOW)
        self._changed = bool(self._window.update(value))
        if not self._changed:
            return None
        change = Change("up" if self.mean > before else "down", before, self.mean)
        self.changes[change.direction] += 1
        return change
