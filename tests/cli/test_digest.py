"""Canonical replays of a real log: what two share, what changes one, and where they stop.

One broker and one log, which grows from test to test.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from confluent_kafka import Producer

from cli.canonical import digests_of, replayed, stopping_point
from infra.embedded_kafka import EmbeddedKafka
from infra.settings import PREFIX, Settings
from ingestion.produce import produce_events, produce_users, produce_videos
from ingestion.simulate import Audience
from state.prediction import INPUT_NAMES
from topics.canonical_log import StoppingPoint
from topics.catalog import User
from topics.groups import log_bounds
from topics.interactions import Interaction
from topics.recommendations import encode_list
from topics.specs import INTERACTIONS, RECOMMENDATIONS, ensure_topics, producer_config, specs

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

PARTITIONS = 2
TO_THE_END = StoppingPoint()
#: Fewer slots than users: they are evicted and read back. More events than a window has.
SETTINGS = {"partitions": PARTITIONS, "max_users": 120}


@dataclass
class Logged:
    """A log on a broker."""

    bootstrap: str
    events: list[Interaction]
    settings: Settings = field(default_factory=lambda: Settings(**SETTINGS))

    def digests(self, until: StoppingPoint = TO_THE_END, fetch: int = 5_000) -> dict[str, str]:
        replayer = replayed(self.settings, self.bootstrap, until, fetch=fetch)
        # Or what is said of lists would be said of nothing.
        assert replayer.engine.exposures["listed"] >= 200
        return digests_of(replayer)

    def replaying(self, hash_seed: int, fetch: int) -> dict[str, Any]:
        """A replay by another process."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        environment |= {PREFIX + name.upper(): str(value) for name, value in SETTINGS.items()}
        done = subprocess.run(
            [sys.executable, "-m", "bench.replaying", self.bootstrap, str(fetch)],
            env={**environment, "PYTHONHASHSEED": str(hash_seed)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def serve(bootstrap: str, followed: list[Interaction]) -> None:
    """Lists that the events follow, as workers send them; the second video of each."""
    producer = Producer(producer_config(bootstrap))
    for number, event in enumerate(followed):
        listed = ["video-1", event.video_id] if event.video_id != "video-1" else ["video-2", "video-1"]
        value = encode_list(f"r{number}", event.at_ms - 1_000, "owner", listed, [], INPUT_NAMES, None)
        producer.produce(RECOMMENDATIONS, value, event.user_id.encode())
    assert not producer.flush(10)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka")) as kafka:
        ensure_topics(kafka.bootstrap, specs("headrace", "v1", PARTITIONS))
        audience = Audience(3, 200, 150)
        videos = list(audience.videos())
        produce_videos(kafka.bootstrap, videos)
        produce_users(kafka.bootstrap, [(f"u{i}", User(country="no" if i % 2 else "de")) for i in range(50)])
        events = list(audience.events(5_000))
        produce_events(kafka.bootstrap, events[:1_500])
        serve(kafka.bootstrap, events[1_500:1_700])
        produce_events(kafka.bootstrap, events[1_500:3_000])
        producer = Producer(producer_config(kafka.bootstrap))
        for number in range(20):
            producer.produce(INTERACTIONS, b'{"bad":%d}' % number, b"u%d" % number, number % PARTITIONS)
        producer.flush(10)
        produce_videos(kafka.bootstrap, [(videos[7][0], None), (videos[8][0], None), videos[8]])
        yield Logged(kafka.bootstrap, events)


def test_processes_fetches_and_the_hash_seed_change_nothing(logged: Logged) -> None:
    here = logged.digests()
    there = logged.replaying(hash_seed=1, fetch=37)
    assert there["digests"] == here
    assert there["events"] == 3_020
    assert len({here[part] for part in ("users", "items", "counters", "factors", "neighbours", "ranker", "heads")}) == 7


def test_the_past_is_what_it_was_when_the_log_ended_there(logged: Logged) -> None:
    before = logged.digests()
    _, ends = log_bounds(logged.bootstrap, PARTITIONS, ["interactions", "videos", "users", "recommendations"])
    # The next record arrives later by the broker's clock, which is this machine's.
    time.sleep(0.05)
    then_ms = int(time.time() * 1000)
    time.sleep(0.05)
    produce_events(logged.bootstrap, logged.events[3_000:])
    produce_videos(logged.bootstrap, list(Audience(4, 1, 3).videos()))
    produce_users(logged.bootstrap, [("u1", User(country="fr"))])
    serve(logged.bootstrap, logged.events[3_000:3_100])
    assert logged.digests(StoppingPoint(arrived_ms=then_ms)) == before
    assert logged.digests(StoppingPoint(places=ends), fetch=200) == before
    after = logged.digests()
    assert all(after[part] != before[part] for part in ("users", "counters", "factors", "neighbours", "ranker"))


def test_one_event_more_changes_what_it_is_about(logged: Logged) -> None:
    before = logged.digests()
    again = logged.events[-1]
    produce_events(logged.bootstrap, [msgspec.structs.replace(again, event_id="another", event="like")])
    after = logged.digests()
    assert after["all"] != before["all"]
    assert after["users"] != before["users"]
    assert after["counters"] != before["counters"]
    assert after["items"] == before["items"]


@pytest.mark.parametrize(
    ("until", "arrived_ms"),
    [
        ("1790000000000", 1_790_000_000_000),
        ("2026-09-21T14:13:20", 1_790_000_000_000),
        ("2026-09-21T16:13:20+02:00", 1_790_000_000_000),
    ],
)
def test_stopping_times(until: str, arrived_ms: int) -> None:
    assert stopping_point(until, None) == StoppingPoint(arrived_ms)


def test_stopping_places(tmp_path: Path) -> None:
    places = {"interactions": {0: 5, 3: 2}}
    assert stopping_point(None, '{"interactions": {"0": 5, "3": 2}}').places == places
    (tmp_path / "places.json").write_text(' {"interactions": {"0": 5, "3": 2}}')
    assert stopping_point(None, str(tmp_path / "places.json")).places == places


@pytest.mark.parametrize(
    ("until", "offsets", "said"),
    [("soon", None, "no time"), (None, '{"a": 1}', "none of ours"), (None, '{"a": {}}', "names a")],
)
def test_what_is_no_stopping_point_is_said(until: str | None, offsets: str | None, said: str) -> None:
    with pytest.raises(typer.BadParameter, match=said):
        stopping_point(until, offsets)
