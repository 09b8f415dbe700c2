"""Building a version from the topics, as far as the version that serves has come.

The log flows in, through a worker of this process; flows out: a version that is closed, and what it took. Always holds: the
new version is never ahead of the one that serves. So every dead letter of what it reads is written already, and it writes none
again; and when it takes over, the workers go on from its own cuts with nothing left out.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from agents.app import HeadraceApp
from cli.event_loop import run_to_end
from cli.replay import ReplayError
from cli.worker_life import live
from infra.embedded_kafka import Broker
from infra.settings import Settings
from topics.erasures import Erasures, read_erasures
from topics.groups import Places, committed, log_bounds, members
from topics.specs import INTERACTIONS, RECOMMENDATIONS, USERS

OUTCOMES = ("learned", "ignored", "duplicate", "dead")
#: Nothing may move for this long before a version counts as caught up: evidence is under way for about two checkpoints.
QUIET_S = 1.0
#: Offsets a partition that may be markers of producers' transactions, which nobody reads; waited for a while all the same.
MARKERS, MARKERS_QUIET_S = 100, 5.0
#: Without any progress for this long, the building has failed.
STALL_S = 60.0
#: What has arrived meanwhile is learned by another pass, until the rest takes the workers no longer than this.
REST_S = 5.0
#: Rates are of the last seconds, in looks of 0.2 s.
RECENT_LOOKS = 25


class CaughtUp(Exception):
    """Everything up to where the version that serves has come is in the new one: not an error, it ends the life."""


@dataclass(frozen=True)
class Target:
    """How far to read.

    Attributes
    ----------
    judged : places up to which the version that serves has read, and written dead letters
    first, until : first offset that the log holds, and where to stop
    """

    judged: Places
    first: Places
    until: Places

    @property
    def records(self) -> int:
        """Offsets of `interactions` from the first to where to stop."""
        return sum(
            max(0, end - self.first[INTERACTIONS].get(partition, 0))
            for partition, end in self.until[INTERACTIONS].items()
        )


def find_target(bootstrap: str, live_group: str, partitions: int) -> Target:
    """Where the serving version has come; where nobody serves it, the end of the log."""
    served = members(bootstrap, live_group) > 0
    judged = committed(bootstrap, live_group, partitions)
    lows, highs = log_bounds(bootstrap, partitions)
    return Target(judged, lows, judged if served else highs)


@dataclass
class Progress:
    """What the building has done; `look` is asked by the life, `show` is called with it."""

    show: Callable[["Progress"], None]
    #: Interactions that were learned by an earlier run; None: as found at the first look, at most 0.2 s after they were read.
    baseline: int | None
    target: Target | None = None
    events: int = 0
    applied: int = 0
    lag: int = 0
    began: float = field(default_factory=time.monotonic)
    history: list[tuple[float, int]] = field(default_factory=list)
    app: HeadraceApp | None = None
    _seen: object = None
    _since: float = 0.0

    @property
    def seconds(self) -> float:
        """Since the building began."""
        return time.monotonic() - self.began

    @property
    def rate(self) -> float:
        """Interactions a second, lately."""
        if len(self.history) < 2:
            return 0.0
        (first_at, first), (last_at, last) = self.history[0], self.history[-1]
        return max(0, last - first) / max(last_at - first_at, 1e-9)

    def aim(self, target: Target) -> None:
        """Begin another pass."""
        self.target, self._seen, self._since = target, None, time.monotonic()

    def look(self, app: HeadraceApp) -> BaseException | None:
        """CaughtUp when the target is reached and nothing moves any more, ReplayError when nothing moves before that."""
        self.app = app
        now = time.monotonic()
        if self.target is None or not app.ready or len(app.engine.shards) < app.options.partitions:
            return self._stalled(now, "the shards were not assigned")
        shards = app.engine.shards.values()
        handled = sum(shard.totals[name] for shard in shards for name in OUTCOMES)
        self.baseline = handled if self.baseline is None else self.baseline
        self.events = handled - self.baseline
        first = self.target.first[INTERACTIONS]
        places = {shard.partition: shard.next.get(INTERACTIONS, 0) for shard in shards}
        self.applied = sum(max(0, place - first.get(partition, 0)) for partition, place in places.items())
        self.lag = app.lag(INTERACTIONS)
        self.history = [*self.history[-RECENT_LOOKS:], (now, self.events)]
        self.show(self)
        # Lists are served all the time: they are not waited for, or a version would never be built while workers are asked.
        seen = [sorted(place for place in shard.next.items() if place[0] != RECOMMENDATIONS) for shard in shards]
        learning = any(shard.dirty_users or shard.dirty_items or shard.dirty_neighbours for shard in shards)
        if seen != self._seen or learning:
            self._seen, self._since = seen, now
        missing = [
            end - shard.next.get(topic, 0)
            for topic, ends in self.target.until.items()
            for shard in shards
            if (end := ends.get(shard.partition, 0)) > self.target.first[topic].get(shard.partition, 0)
        ]
        left = max(missing, default=0)
        if left <= MARKERS and now - self._since > (QUIET_S if left <= 0 else MARKERS_QUIET_S):
            return CaughtUp()
        return self._stalled(now, f"{sum(max(0, each) for each in missing):,} records left")

    def _stalled(self, now: float, why: str) -> ReplayError | None:
        return ReplayError(f"no progress for {STALL_S:.0f} s: {why}") if now - self._since > STALL_S else None


def build(building: Settings, broker: Broker, live_group: str, progress: Progress, cut: Places | None = None) -> None:
    """Build the version, in passes: each reads up to where the serving one has come when it begins.

    Parameters
    ----------
    cut : places to stop at instead, in one pass; none is beyond where the serving one has come

    Raises
    ------
    ReplayError
        The worker that builds has failed, or did not let go of its stores.
    KeyboardInterrupt
        Told to stop; the version may be gone on with.
    """
    target = find_target(broker.bootstrap, live_group, building.partitions)
    if cut is not None:
        target = replace(target, until=cut)
    lows, highs = log_bounds(broker.bootstrap, building.partitions, [USERS])
    erasures = Erasures(building.max_users)
    # Beforehand, as the worker reads all topics at once: it would count what it reads before it hears of the erasure.
    read_erasures(broker.bootstrap, {each: (low, highs[USERS][each]) for each, low in lows[USERS].items()}, erasures)
    while True:
        progress.aim(target)
        ending, _ = run_to_end(live(building, broker, progress.look, target.judged, target.until, forgotten=erasures))
        if ending is None:
            raise KeyboardInterrupt
        if not isinstance(ending, CaughtUp):
            raise ReplayError(f"{type(ending).__name__}: {ending}") from ending
        if progress.app is None or progress.app.engine.shards:
            raise ReplayError("the worker that builds did not stop in time")
        if cut is not None:
            return
        following = find_target(broker.bootstrap, live_group, building.partitions)
        if following.records - target.records <= REST_S * progress.events / progress.seconds:
            return
        target = following
