"""What a log of interactions amounts to, counted with dictionaries: independent of everything that learns."""

from collections import Counter
from collections.abc import Iterable

from state.users import ACT_NEGATIVE, ACT_NONE, ACT_SEEN, ACT_UNDO, DUPLICATE, POSITIVE
from tests.plain_user import Event, PlainUser
from topics.interactions import Interaction, event_code
from topics.partitions import stable_hash
from topics.signals import is_positive

ACTS = {"watch": ACT_SEEN, "dislike": ACT_NEGATIVE, "unlike": ACT_UNDO}


class Recount:
    """Users, counters and links of a log, counted with dictionaries."""

    def __init__(self, events: Iterable[Interaction]) -> None:
        self.users: dict[str, PlainUser] = {}
        self.outcomes: Counter[int] = Counter()
        self.items: Counter[tuple[str, int]] = Counter()
        self.plays: Counter[str] = Counter()
        #: (source, target) to (weight, event time) for co-visitation: 0.9 a lag, both ways.
        self.links: dict[tuple[str, str], list[tuple[float, int]]] = {}
        for e in events:
            kind = event_code(e.event)
            positive = is_positive(e.event, e.watch_seconds, e.duration_seconds)
            plain = Event(
                e.user_id, e.video_id, stable_hash(e.event_id), kind, ACTS.get(e.event, ACT_NONE), positive, e.at_ms
            )
            outcome, before = self.users.setdefault(e.user_id, PlainUser()).admit(plain)
            self.outcomes[outcome] += 1
            if outcome != DUPLICATE:
                self.items[e.video_id, kind] += 1
            if outcome == POSITIVE:
                self.plays[e.video_id] += 1
                for lag, held in enumerate(before):
                    if held != e.video_id:
                        for pair in ((held, e.video_id), (e.video_id, held)):
                            self.links.setdefault(pair, []).append((0.9**lag, e.at_ms))
