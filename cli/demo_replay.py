"""The demo's replay: events into Kafka at the pace of the worker, and samples of whether the lists foresaw them.

Paced by lag: at most `MAX_LAG` events are sent and not applied. What is measured of freshness is then the time through
the pipeline, not the length of a queue that the demo itself has filled.

The hit rate is online and prequential: for a sample of positive events, the worker is asked for the user's list just
before the event is sent, and the list hits if the video is among its first 10. A user's video counts once, at its first
positive. Trending is asked at the same moment and, as the served list leaves out what the user has seen, so does it.
"""

import time
from collections.abc import Iterable, Iterator

from cli.demo_status import Status
from cli.worker_client import WorkerClient, WorkerUnavailable
from ingestion.produce import Produced, produce_events
from topics.interactions import Interaction
from topics.partitions import stable_hash
from topics.signals import is_positive, marks_seen

MAX_LAG = 500
#: Pause while the worker is behind, in seconds: well below the time that it needs for `MAX_LAG` events.
PAUSE_S = 0.002
#: Lists asked for, in seconds between two samples: each costs the worker some milliseconds.
SAMPLE_EVERY_S = 0.05
TOP = 10
#: Trending is asked for more, as what the user has seen is taken out of it.
TRENDING_N = 60
#: Until then there is nothing to recommend from.
WARMUP_EVENTS = 5_000


class Replay:
    """One run of events; `run` blocks until they are all in the log, or `status.stop` is set."""

    def __init__(self, bootstrap: str, client: WorkerClient, status: Status, speed: float | None) -> None:
        self._bootstrap, self._client, self._status, self._speed = bootstrap, client, status, speed
        self._next_sample = 0.0
        #: Hashes of (user, video): at most one entry a row of the log.
        self._seen: set[int] = set()

    def run(self, events: Iterable[Interaction]) -> Produced:
        """Send all events in order; returns what the broker has confirmed."""
        self._status.began = time.monotonic()
        return produce_events(self._bootstrap, self._paced(events), speed=self._speed)

    def _paced(self, events: Iterable[Interaction]) -> Iterator[Interaction]:
        status = self._status
        for event in events:
            while status.lag() >= MAX_LAG and not status.stop.is_set():
                time.sleep(PAUSE_S)
            if status.stop.is_set():
                return
            self._look_at(event)
            status.replayed += 1
            status.at_ms = event.at_ms
            yield event

    def _look_at(self, event: Interaction) -> None:
        """Take a sample if one is due, and remember what the user has seen."""
        if not marks_seen(event.event, event.watch_seconds, event.duration_seconds):
            return
        pair = _pair(event.user_id, event.video_id)
        if pair in self._seen:
            return
        now = time.monotonic()
        positive = is_positive(event.event, event.watch_seconds, event.duration_seconds)
        if positive and now >= self._next_sample and self._status.replayed >= WARMUP_EVENTS:
            self._next_sample = now + SAMPLE_EVERY_S
            self._sample(event)
        self._seen.add(pair)

    def _sample(self, event: Interaction) -> None:
        try:
            served = self._client.recommend(event.user_id, TOP)["items"]
            popular = self._client.ask("GET", f"/v1/trending?n={TRENDING_N}")["items"]
        except WorkerUnavailable:
            return  # it is starting anew: no sample, as no user would get a list
        unseen = [i["video_id"] for i in popular if _pair(event.user_id, i["video_id"]) not in self._seen][:TOP]
        hit = any(item["video_id"] == event.video_id for item in served)
        self._status.hits.append((hit, event.video_id in unseen))


def _pair(user_id: str, video_id: str) -> int:
    return stable_hash(f"{user_id}\0{video_id}")
