"""What a log of interactions amounts to, counted with dictionaries: independent of everything that learns.

Events flow in, in the log's order within a user; users, counters and links flow out. Constants of the models are written out here once
more: a recount that read them from the models would follow their mistakes.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from cli.plain_user import ACT_NEGATIVE, ACT_NONE, ACT_SEEN, ACT_UNDO, DUPLICATE, POSITIVE, Event, PlainUser
from topics.evidence import SHOWN
from topics.interactions import Interaction, event_code
from topics.partitions import stable_hash
from topics.signals import is_positive

DAY_MS = 86_400_000
ACTS = {"watch": ACT_SEEN, "dislike": ACT_NEGATIVE, "unlike": ACT_UNDO}
#: In positives, which `positives_per_day` turns into time.
POPULARITY_HALF_LIVES = (300.0, 3_000.0, 30_000.0)
COVISITS_HALF_LIFE, MARKOV_HALF_LIFE = 30_000.0, 3_000.0
#: Weight of the latest positive but r, to the power of r; how many of them are linked.
COVISITS_DECAY, MARKOV_DECAY, MARKOV_LAGS = 0.9, 0.6, 2


@dataclass(slots=True)
class Fading:
    """A sum of weights that fade with a half-life, kept as of its latest event; `half_life_ms` is the same in every call."""

    value: float = 0.0
    at_ms: float = 0.0

    def add(self, weight: float, at_ms: float, half_life_ms: float) -> None:
        """Add a weight of any time."""
        if not self.value or at_ms > self.at_ms:
            self.value = self.as_of(at_ms, half_life_ms) + weight
            self.at_ms = at_ms
        else:
            self.value += weight * 2.0 ** ((at_ms - self.at_ms) / half_life_ms)

    def as_of(self, at_ms: float, half_life_ms: float) -> float:
        """The sum as of a time, before or after its latest event."""
        return self.value * 2.0 ** ((self.at_ms - at_ms) / half_life_ms) if self.value else 0.0


Links = dict[str, dict[str, Fading]]


class Recount:
    """Users, counters and links of a log.

    Parameters
    ----------
    events : counted at once; `count` takes more
    positives_per_day : turns half-lives into time, as the worker's setting does
    """

    def __init__(self, events: Iterable[Interaction] = (), positives_per_day: float = 5_000.0) -> None:
        self.tick_ms = DAY_MS / positives_per_day
        self.users: dict[str, PlainUser] = {}
        self.outcomes: Counter[int] = Counter()
        #: First positives beyond what a user may have in an hour.
        self.damped = 0
        self.items: Counter[tuple[str, int]] = Counter()
        self.plays: Counter[str] = Counter()
        #: Event times of a video's first and last positive, and its positives, fading with each half-life.
        self.span_ms: dict[str, tuple[int, int]] = {}
        self.faded: dict[str, tuple[Fading, ...]] = {}
        #: By source and target: chosen by the same people, both ways; and chosen next.
        self.covisits: Links = {}
        self.markov: Links = {}
        for event in events:
            self.count(event)

    def count(self, e: Interaction) -> int:
        """Count one event; returns what became of it."""
        kind = event_code(e.event)
        positive = is_positive(e.event, e.watch_seconds, e.duration_seconds)
        plain = Event(
            e.user_id, e.video_id, stable_hash(e.event_id), kind, ACTS.get(e.event, ACT_NONE), positive, e.at_ms
        )
        user = self.users.setdefault(e.user_id, PlainUser())
        outcome, before = user.admit(plain)
        self.outcomes[outcome] += 1
        if outcome != DUPLICATE:
            self.items[e.video_id, kind] += 1
        if user.shown is not None:
            self.items[user.shown, SHOWN] += 1
        if user.damped:
            self.damped += 1
        elif outcome == POSITIVE:
            self._play(e.video_id, e.at_ms)
            self._link(e.video_id, before, e.at_ms)
        return outcome

    def _play(self, video: str, at_ms: int) -> None:
        self.plays[video] += 1
        first, last = self.span_ms.get(video, (at_ms, at_ms))
        self.span_ms[video] = min(first, at_ms), max(last, at_ms)
        sums = self.faded.setdefault(video, tuple(Fading() for _ in POPULARITY_HALF_LIVES))
        for total, half_life in zip(sums, POPULARITY_HALF_LIVES, strict=True):
            total.add(1.0, at_ms, half_life * self.tick_ms)

    def _link(self, video: str, before: list[str], at_ms: int) -> None:
        for lag, held in enumerate(before):
            if held == video:
                continue
            weight, half_life_ms = COVISITS_DECAY**lag, COVISITS_HALF_LIFE * self.tick_ms
            for source, target in ((held, video), (video, held)):
                _link(self.covisits, source, target).add(weight, at_ms, half_life_ms)
            if lag < MARKOV_LAGS:
                _link(self.markov, held, video).add(MARKOV_DECAY**lag, at_ms, MARKOV_HALF_LIFE * self.tick_ms)


def _link(links: Links, source: str, target: str) -> Fading:
    return links.setdefault(source, {}).setdefault(target, Fading())
