"""Whether what served lists find has changed for good: a window that is as long as its mean has been the same.

Flows in: whether each scored positive was in the served list. Flows out: changes, with the shares before and after. Always holds:
memory grows with the logarithm of the window. The test is ADWIN's (Bifet and Gavaldà, "Learning from Time-Changing Data with Adaptive
Windowing", SDM 2007), as river has it.
"""

from typing import NamedTuple

from river.drift import ADWIN

#: Probability with which a cut of a window whose mean has not changed is taken for a change. An hour has thousands of samples, and
#: each may be looked at: a day without changes should have none.
DELTA = 2e-4
DIRECTIONS = ("up", "down")


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
        self._window = ADWIN(delta=delta)  # type: ignore[no-untyped-call]
        #: Changes so far.
        self.changes = dict.fromkeys(DIRECTIONS, 0)

    @property
    def mean(self) -> float:
        """Of the window; 0 before anything came."""
        return float(self._window.estimation)

    def add(self, value: float) -> Change | None:
        """One more number; what has changed, if anything has."""
        before = self.mean
        self._window.update(value)  # type: ignore[no-untyped-call]
        if not self._window.drift_detected:
            return None
        change = Change("up" if self.mean > before else "down", before, self.mean)
        self.changes[change.direction] += 1
        return change
