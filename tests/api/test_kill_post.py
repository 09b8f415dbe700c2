"""A worker that is killed while clients post to it as fast as they can: what it has acknowledged is in the log, and counts once."""

import json
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
from confluent_kafka import Consumer, TopicPartition

from tests.agents.running_worker import HOST, RunningWorker, handled
from tests.api.waiting import ready
from topics.specs import INTERACTIONS

CLIENTS, BATCH = 4, 100
APP = "posted"


class Poster(threading.Thread):
    """Posts batches until the worker answers no more."""

    def __init__(self, number: int, url: str) -> None:
        super().__init__(daemon=True)
        self._number, self._url = number, url
        #: Ids of the events of each batch, by whether it was acknowledged.
        self.acknowledged: list[str] = []
        self.unanswered: list[str] = []

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=10) as http:
            for batch in range(100_000):
                ids = [f"{self._number}-{batch}-{event}" for event in range(BATCH)]
                events = [
                    {"event_id": each, "user_id": f"u{each}", "video_id": f"v{number % 7}", "event": "view"}
                    for number, each in enumerate(ids)
                ]
                try:
                    answer = http.post("/v1/events", json=events)
                except httpx.TransportError:
                    self.unanswered += ids
                    return
                assert answer.status_code == 202, answer.text
                assert answer.json()["accepted"] == BATCH
                self.acknowledged += ids


def logged_ids(bootstrap: str) -> Counter[str]:
    """How often each event is in the log, uncommitted records too."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "count", "enable.auto.commit": False})
    found: Counter[str] = Counter()
    try:
        partitions = consumer.list_topics(INTERACTIONS).topics[INTERACTIONS].partitions
        ends = {}
        for partition in partitions:
            low, ends[partition] = consumer.get_watermark_offsets(TopicPartition(INTERACTIONS, partition), 10)
            assert low == 0
        consumer.assign([TopicPartition(INTERACTIONS, partition, 0) for partition in partitions])
        left = sum(ends.values())
        deadline = time.monotonic() + 30
        while left and time.monotonic() < deadline:
            for message in consumer.consume(1_000, 0.5):
                assert message.error() is None
                found[json.loads(message.value() or b"")["event_id"]] += 1
                left -= 1
        assert left == 0
    finally:
        consumer.close()
    return found


def test_nothing_that_was_acknowledged_is_lost_when_the_worker_is_killed(bootstrap: str, tmp_path: Path) -> None:
    with RunningWorker(bootstrap, tmp_path, APP) as worker:
        ready(worker)
        posters = [Poster(number, f"http://{HOST}:{worker.port}") for number in range(CLIENTS)]
        for poster in posters:
            poster.start()
        deadline = time.monotonic() + 30
        while sum(len(poster.acknowledged) for poster in posters) < 5_000 and time.monotonic() < deadline:
            time.sleep(0.01)
        worker.kill()
        for poster in posters:
            poster.join(30)
    acknowledged = {each for poster in posters for each in poster.acknowledged}
    unanswered = {each for poster in posters for each in poster.unanswered}
    assert len(acknowledged) >= 5_000
    assert unanswered, "it was killed while nobody posted"
    logged = logged_ids(bootstrap)
    assert acknowledged <= set(logged), f"{len(acknowledged - set(logged))} acknowledged events are not in the log"
    assert set(logged) <= acknowledged | unanswered
    # A client that was not answered sends the same again; the next life takes each event once.
    with RunningWorker(bootstrap, tmp_path, APP) as worker:
        ready(worker)
        again = sorted(unanswered)
        with httpx.Client(base_url=f"http://{HOST}:{worker.port}", timeout=10) as http:
            for first in range(0, len(again), BATCH):
                events = [
                    {"event_id": each, "user_id": f"u{each}", "video_id": "v0", "event": "view"}
                    for each in again[first : first + BATCH]
                ]
                assert http.post("/v1/events", json=events).status_code == 202
        expected = sum(logged.values()) + len(again)
        totals = Counter(worker.wait(lambda totals: handled(totals) >= expected))
    assert totals["duplicate"] == expected - len(acknowledged | unanswered)
    assert totals["learned"] + totals["ignored"] == len(acknowledged | unanswered)
    assert totals["dead"] == 0
