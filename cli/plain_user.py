"""What a user's state means, in the slowest and plainest words: the reference for admission and for recounts of logs.

Independent of what it checks: no array, no hash, and its constants are written out here once more.
"""

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field

#: Bounds of a user: latest positives, event ids remembered, videos seen, videos shown and passed over.
HISTORY, RECENT_IDS, SEEN_MAX, PASSED = 20, 32, 2048, 8
#: First positives in an hour that teach what all users share.
HOURLY_MAX, HOUR_MS = 1_000, 3_600_000
#: What becomes of an event.
POSITIVE, SIGNAL, IGNORED, DUPLICATE = 0, 1, 2, 3
#: How an event's kind acts on the user.
ACT_NONE, ACT_SEEN, ACT_NEGATIVE, ACT_UNDO = 0, 1, 2, 3


@dataclass
class Event:
    """One event; `kind` is its number, `event_id` the number that stands for its id."""

    user: str
    video: str
    event_id: int
    kind: int
    act: int
    positive: bool
    at_ms: int


@dataclass
class PlainUser:
    """A user's state after the events admitted so far."""

    recent: deque[int] = field(default_factory=lambda: deque(maxlen=RECENT_IDS))
    #: Videos seen, oldest first, and whether the pair had its positive.
    seen: "OrderedDict[str, bool]" = field(default_factory=OrderedDict)
    #: Latest positives, newest first.
    history: list[str] = field(default_factory=list)
    counts: Counter[int] = field(default_factory=Counter)
    last_ms: int = 0
    #: The video that the latest events are about, and whether one of them was positive.
    open: str | None = None
    open_liked: bool = False
    #: Videos that the user went on from without liking them, newest first.
    passed: list[str] = field(default_factory=list)
    #: The latest hour of a first positive, how many there have been since it began, and whether the last one was beyond the bound.
    hour: int = 0
    in_hour: int = 0
    damped: bool = False
    #: The video that the user came to with the event admitted last, if they did.
    shown: str | None = None

    def admit(self, event: Event) -> tuple[int, list[str]]:
        """The outcome, and for a positive the history before it."""
        self.shown, self.damped = None, False
        if event.event_id in self.recent:
            return DUPLICATE, []
        self.recent.append(event.event_id)
        self._go_on(event)
        self.counts[event.kind] += 1
        self.last_ms = max(self.last_ms, event.at_ms)
        known = event.video in self.seen
        before = list(self.history)
        if event.positive:
            if known and self.seen[event.video]:
                return IGNORED, []
            self._see(event.video, positive=True)
            if event.at_ms // HOUR_MS > self.hour:
                self.hour, self.in_hour = event.at_ms // HOUR_MS, 0
            self.in_hour += 1
            self.damped = self.in_hour > HOURLY_MAX
            self.history = [event.video, *(v for v in self.history if v != event.video)][:HISTORY]
            return POSITIVE, before
        if event.act == ACT_SEEN and not known:
            self._see(event.video, positive=False)
            return SIGNAL, []
        if event.act == ACT_NEGATIVE:
            if not known:
                self._see(event.video, positive=False)
            return (SIGNAL if self._forget(event.video) or not known else IGNORED), []
        if event.act == ACT_UNDO:
            self._forget(event.video)
            if known and self.seen[event.video]:
                self.seen[event.video] = False
                return SIGNAL, []
        return IGNORED, []

    def _go_on(self, event: Event) -> None:
        """A video counts as shown when the user comes to it, and as passed over when they go on without having liked it."""
        if event.video != self.open:
            if self.open is not None and not self.open_liked:
                self.passed = [self.open, *(v for v in self.passed if v != self.open)][:PASSED]
            self.open, self.open_liked = event.video, False
            self.shown = event.video
        if event.positive:
            self.open_liked = True
            self.passed = [v for v in self.passed if v != event.video]

    def _see(self, video: str, *, positive: bool) -> None:
        if video not in self.seen and len(self.seen) == SEEN_MAX:
            self.seen.popitem(last=False)
        self.seen[video] = positive

    def _forget(self, video: str) -> bool:
        held = video in self.history
        self.history = [v for v in self.history if v != video]
        return held
