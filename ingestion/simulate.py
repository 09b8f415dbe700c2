"""A made-up audience for demos and tests: videos with titles, and users whose tastes drift, for any seed.

Only a seed flows in; a catalogue and an endless, time-ordered stream of events flow out, the same for the same seed
on every machine. What a recommender can learn from it: users favour a few categories and channels, favourites change
over days, popularity is Zipf's, new videos appear, and nobody is shown a video again before half of all were shown.
"""

import heapq
import math
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate, count, islice
from random import Random
from typing import Final, NamedTuple

from ingestion.simulated_words import PATTERNS, THEMES
from topics.catalog import Video
from topics.interactions import Event, Interaction

START_MS: Final = 1_704_067_200_000  # 2024-01-01T00:00Z: a fixed time, as equal seeds must give equal events
_HOUR_MS: Final = 3_600_000
_PUBLISHING_HOURS: Final = 7 * 24  # a fifth of the catalogue appears over the first week
_SESSION_LENGTH: Final = 12  # mean of videos shown in a session
_DRIFT: Final = 0.15  # standard deviation of a step of each taste, taken once a session
_CHANGE: Final = 0.04  # probability that a session starts with a new favourite category
_BY_TASTE: Final = 0.75  # share of what is shown that follows taste; the rest is popular with everybody
_ATTEMPTS: Final = 6  # draws for a video that is published and not seen, before the session ends


class _Video(NamedTuple):
    video_id: str
    category: int
    duration_s: float
    published_ms: int
    quality: float


class _Viewer:
    """One user: tastes as log-odds a category, and what was shown."""

    def __init__(self, user_id: str, random: Random) -> None:
        self.user_id = user_id
        self.tastes = [random.gauss(-1.0, 0.7) for _ in THEMES]
        self.seen: set[int] = set()
        self.session = 0
        self.left = 0  # videos left in this session
        for _ in range(2):
            self.find_favourite(random)

    def find_favourite(self, random: Random) -> None:
        self.tastes[random.randrange(len(self.tastes))] = random.uniform(1.5, 2.5)

    def begin_session(self, random: Random) -> None:
        self.session += 1
        self.left = 1 + int(random.expovariate(1 / _SESSION_LENGTH))
        # pulled back to -1, so that a taste wanders but does not run away
        self.tastes = [0.98 * taste - 0.02 + random.gauss(0, _DRIFT) for taste in self.tastes]
        if random.random() < _CHANGE:
            self.find_favourite(random)

    def category(self, random: Random) -> int:
        weights = [math.exp(taste) for taste in self.tastes]
        return random.choices(range(len(weights)), weights)[0]


class Audience:
    """A catalogue and the users who watch it.

    Parameters
    ----------
    seed : equal seeds and sizes give equal videos and events
    users, videos : how many there are, at least 1
    start_ms : time of the first event, milliseconds since 1970
    """

    def __init__(self, seed: int = 1, users: int = 1_000, videos: int = 2_000, *, start_ms: int = START_MS) -> None:
        if users < 1 or videos < 1:
            raise ValueError(f"an audience needs users and videos, got {users} and {videos}")
        self._seed, self._users, self._start_ms = seed, users, start_ms
        random = Random(f"{seed} videos")
        self._catalogue = [self._make(number, random) for number in range(videos)]
        self._by_category = [
            [number for number, (video, _) in enumerate(self._catalogue) if video.category == category]
            for category in range(len(THEMES))
        ]
        # Zipf by number: videos were numbered at random with regard to category, quality and time
        self._popularity = list(accumulate(1 / (rank + 3) for rank in range(videos)))

    def videos(self) -> list[tuple[str, Video]]:
        """Return the catalogue by id; a fifth of it is published after the first event."""
        return [(video.video_id, entry) for video, entry in self._catalogue]

    def events(self, n: int) -> Iterator[Interaction]:
        """Yield the first `n` events, ordered by `at_ms`; every call begins anew."""
        return islice(self._stream(), n)

    def _make(self, number: int, random: Random) -> tuple[_Video, Video]:
        category = random.randrange(len(THEMES))
        name = list(THEMES)[category]
        theme = THEMES[name]
        subject, channel = random.choice(theme.subjects), random.choice(theme.channels)
        title = random.choice(PATTERNS).format(subject=subject)
        duration_s = round(min(600.0, max(5.0, random.lognormvariate(3.4, 0.8))), 1)
        hours = random.uniform(0, _PUBLISHING_HOURS) * (1 if random.random() < 0.2 else -1)
        published_ms = self._start_ms + int(hours * _HOUR_MS)
        video = _Video(f"video-{number}", category, duration_s, published_ms, random.gauss(0, 0.5))
        return video, Video(
            title=title[0].upper() + title[1:],
            description=f"{channel} on {subject}.",
            categories=(name,),
            tags=tuple(word for word in subject.lower().replace(",", "").split() if len(word) > 3),
            author=channel,
            language="en",
            duration_seconds=duration_s,
            published_ms=published_ms,
        )

    def _stream(self) -> Iterator[Interaction]:
        random = Random(f"{self._seed} events")
        viewers = [_Viewer(f"user-{number}", random) for number in range(self._users)]
        # users differ in how often they come: from several times a day to once in ten days
        pauses_ms = [_HOUR_MS * random.lognormvariate(2.5, 1.0) for _ in viewers]
        due = [(self._start_ms + int(random.expovariate(1 / pause)), user) for user, pause in enumerate(pauses_ms)]
        heapq.heapify(due)
        event_numbers = count()
        while True:
            at_ms, user = heapq.heappop(due)
            viewer = viewers[user]
            if viewer.left == 0:
                viewer.begin_session(random)
            viewer.left -= 1
            number = self._choose(viewer, at_ms, random)
            spent_ms = 0
            if number is None:
                viewer.left = 0
                if 2 * len(viewer.seen) >= len(self._catalogue):
                    viewer.seen.clear()  # or a small catalogue would end a stream that has no end
            else:
                viewer.seen.add(number)
                video = self._catalogue[number][0]
                played_s, reactions = _react(viewer.tastes[video.category] + video.quality, video.duration_s, random)
                spent_ms = int(played_s * 1000) + random.randrange(300, 2_000)
                for event in reactions:
                    watched = event == "watch"
                    yield Interaction(
                        f"{self._seed}-{next(event_numbers)}",
                        viewer.user_id,
                        video.video_id,
                        event,
                        at_ms,
                        played_s if watched else None,
                        video.duration_s if watched else None,
                        session_id=f"{viewer.user_id}-{viewer.session}",
                    )
            pause_ms = spent_ms if viewer.left else int(random.expovariate(1 / pauses_ms[user]))
            heapq.heappush(due, (at_ms + max(pause_ms, 1), user))

    def _choose(self, viewer: _Viewer, at_ms: int, random: Random) -> int | None:
        """Draw a video to show, by taste and popularity; None if all draws were seen or are not published yet."""
        for _ in range(_ATTEMPTS):
            if random.random() < _BY_TASTE:
                own = self._by_category[viewer.category(random)]
                if not own:
                    continue
                # the square favours low numbers, which are the popular ones
                number = own[int(len(own) * random.random() ** 2)]
            else:
                number = bisect_right(self._popularity, random.random() * self._popularity[-1])
            if number not in viewer.seen and self._catalogue[number][0].published_ms <= at_ms:
                return number
        return None


def _react(liking: float, duration_s: float, random: Random) -> tuple[float, list[Event]]:
    """What a user does with a video that is shown: seconds played, and events in order; `liking` is log-odds."""
    chance = 1 / (1 + math.exp(-liking))
    events: list[Event] = ["impression"]
    if random.random() > 0.3 + 0.65 * chance:
        return 0.0, events
    share = random.betavariate(0.6 + 3 * chance, 0.6 + 3 * (1 - chance))
    played_s = round(duration_s * share * (1.3 if random.random() < chance / 4 else 1.0), 1)
    events.append("watch")
    if share < 0.1:
        events.append("skip")
        if random.random() < 0.05:
            events.append("dislike")
    elif share > 0.5:
        rates: tuple[tuple[Event, float], ...] = (("like", 0.25), ("comment", 0.03), ("share", 0.03), ("follow", 0.02))
        events += [event for event, rate in rates if random.random() < rate * chance]
    return played_s, events
