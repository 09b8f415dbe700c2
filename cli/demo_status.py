"""What the demo has seen so far: the one object that its threads write and its view reads.

Each field is written by one thread and replaced whole, so that a reader never waits and never sees half of a change.
"""

import threading
import time
from dataclasses import dataclass, field

import numpy as np

OUTCOMES = ("learned", "ignored", "duplicate", "dead")


@dataclass
class LikeShown:
    """A user's list before and after a like, and the milliseconds from the POST to the first answer that reflects it."""

    user_id: str
    liked: str
    before: list[str]
    after: list[str]
    took_ms: float


@dataclass
class Status:
    """Counts and samples; times are `time.monotonic()` in seconds."""

    stop: threading.Event = field(default_factory=threading.Event)
    failure: BaseException | None = None
    answering: bool = True
    #: Event time up to which the log is replayed, in milliseconds.
    at_ms: int = 0
    #: Events sent: of the replay, of the freshness probe, and likes.
    replayed: int = 0
    probed: int = 0
    liked: int = 0
    totals: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    baseline: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    began: float = 0.0
    ended: float = 0.0
    freshness_ms: list[float] = field(default_factory=list)
    #: By sample: whether the video was in the served top 10, and in the top 10 of trending.
    hits: list[tuple[bool, bool]] = field(default_factory=list)
    like: LikeShown | None = None
    #: (time, events applied), one a second or so.
    history: list[tuple[float, int]] = field(default_factory=list)

    def outcomes(self) -> dict[str, int]:
        """Events that this run has brought to each end."""
        totals, baseline = self.totals, self.baseline
        return {name: totals.get(name, 0) - baseline.get(name, 0) for name in OUTCOMES}

    def applied(self) -> int:
        """Events of this run that the worker has dealt with."""
        return sum(self.outcomes().values())

    def sent(self) -> int:
        """Events that the demo has sent."""
        return self.replayed + self.probed + self.liked

    def lag(self) -> int:
        """Events sent and not dealt with yet."""
        return max(0, self.sent() - self.applied())

    def rate(self) -> float:
        """Events a second from the first to the last, or to now."""
        if not self.began:
            return 0.0
        return self.applied() / max((self.ended or time.monotonic()) - self.began, 1e-9)

    def recent_rate(self) -> float:
        """Events a second over the last few seconds."""
        history = self.history[-6:]
        if len(history) < 2 or history[-1][0] == history[0][0]:
            return self.rate()
        return (history[-1][1] - history[0][1]) / (history[-1][0] - history[0][0])

    def freshness(self, quantile: float) -> float | None:
        """A quantile of all samples, in milliseconds; None while there is none."""
        samples = list(self.freshness_ms)
        return float(np.quantile(samples, quantile)) if samples else None

    def hit_rates(self) -> tuple[int, float, float]:
        """Samples, and the hit rate of the served list and of trending."""
        hits = list(self.hits)
        if not hits:
            return 0, 0.0, 0.0
        return len(hits), sum(served for served, _ in hits) / len(hits), sum(top for _, top in hits) / len(hits)
