"""How a list is made, beyond whose it is and what may be in it: boosts, variety, what is held back, what explores.

Flows in: a request, a scenario or an experiment's arm. Flows out: a `Tuning`. Always holds: `PLAIN` changes nothing.
"""

from dataclasses import dataclass

from state.expression import Expression
from state.objective import Objective

#: A boost multiplies odds by no more, and divides them by no more.
MAX_FACTOR = 1000.0
MAX_BOOSTS = 10
#: Places of one list that explore on request.
MAX_EXPLORED = 20


@dataclass(frozen=True)
class Boost:
    """Multiply the odds of candidates that fit by `factor`."""

    when: Expression
    factor: float


@dataclass(frozen=True)
class Tuning:
    """How a list is made.

    Attributes
    ----------
    objective : what it is ordered by; None: as the worker is told
    explore : share of its places that go to videos that few have played; None: a last place in some of the worker's lists
    diversity : from 0, by score alone, to 1, each place as unlike those above it as it can be
    max_per_author, max_per_category : places that videos of one author, or of one main category (the first), may have
    rotation : each list of the last half hour in which the user left a video alone multiplies its odds by 1 - rotation
    boosts : multiply odds
    without : features that the ranker does without
    """

    objective: Objective | None = None
    explore: float | None = None
    diversity: float = 0.0
    max_per_author: int | None = None
    max_per_category: int | None = None
    rotation: float = 0.0
    boosts: tuple[Boost, ...] = ()
    without: tuple[str, ...] = ()

    @property
    def mixes(self) -> bool:
        """Whether a place depends on what stands above it."""
        return self.diversity > 0.0 or self.max_per_author is not None or self.max_per_category is not None

    @property
    def reorders(self) -> bool:
        """Whether the list is anything but the best by score."""
        return self.mixes or self.rotation > 0.0 or bool(self.boosts)


#: Changes nothing.
PLAIN = Tuning()
