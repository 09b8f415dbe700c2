"""`headrace verify` beside a real worker: while it learns, when it is done, and when somebody has changed a row."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from confluent_kafka import Producer

from cli.verify import verify
from cli.versions import UnknownVersion
from infra.embedded_kafka import EmbeddedKafka
from ingestion.produce import produce_users, produce_videos
from ingestion.simulate import Audience
from state import rows
from tests.agents.running_worker import RunningWorker, handled, latest, read_committed
from topics.catalog import User
from topics.interactions import Interaction, encode
from topics.partitions import partition_of
from topics.specs import INTERACTIONS, changelog_topic, ensure_topics, producer_config, specs

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

APP, PARTITIONS, EVENTS = "verified", 4, 3_000


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka")) as kafka:
        yield kafka.bootstrap


def out_of_order(events: list[Interaction]) -> Iterator[tuple[bytes, bytes]]:
    """Events as key and value, each up to 50 places from where it belongs, every tenth twice, some of them later; and garbage."""
    random_ = random.Random(1)
    order = sorted(range(len(events)), key=lambda number: number + random_.randrange(50))
    for number in order:
        for repeat in (number, *([random_.randrange(number + 1)] if random_.random() < 0.1 else [])):
            event = events[repeat]
            yield event.user_id.encode(), encode(event)
        if number % 100 == 0:
            yield b"user-1", b"{"


def verified(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    """Exit status and answer."""
    capsys.readouterr()
    status = 0
    try:
        verify(None, as_json=True)
    except typer.Exit as ended:
        status = ended.exit_code
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return status, answer


def test_a_version_and_its_log(
    kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)
    monkeypatch.setenv("HEADRACE_APP", APP)
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    ensure_topics(kafka, specs(APP, "v1", PARTITIONS))
    audience = Audience(5, 300, 200)
    videos = audience.videos()
    produce_videos(kafka, videos)
    produce_users(kafka, [(f"user-{n}", User(country="no")) for n in range(20)])
    events = list(audience.events(EVENTS))
    log = list(out_of_order(events))
    producer = Producer(producer_config(kafka))
    with RunningWorker(kafka, tmp_path, APP) as worker:
        worker.wait(lambda _: "worker ready" in worker.log, 90)
        for number, (key, value) in enumerate(log):
            producer.produce(INTERACTIONS, value, key)
            if number == len(log) // 2:
                producer.flush(10)
        producer.flush(10)
        worker.wait(lambda totals: handled(totals) > 0, 90)
        # Whatever it has committed by now, and while it goes on.
        status, early = verified(capsys)
        assert (status, early["equal"], early["first"]) == (0, True, [])
        worker.wait(lambda totals: handled(totals) == len(log), 90)
        assert worker.stop() == 0
    status, done = verified(capsys)
    assert (status, done["equal"], done["first"]) == (0, True, [])
    assert done["events"] == len(log) >= early["events"]
    assert done["users"] > 100
    assert done["videos"] == 200
    assert done["vectors"]["users"] > 100
    assert done["vectors"]["mean"] > 0.5
    user, video = events[0].user_id, events[0].video_id
    plant(kafka, user, video)
    status, planted = verified(capsys)
    assert status == 1
    assert planted["differences"] == 2
    assert [difference.split(":")[0] for difference in planted["first"]] == [
        f"user {user}, counters",
        f"video {video}, counters",
    ]


def plant(bootstrap: str, user: str, video: str) -> None:
    """Change a count of a user and one of a video, as no worker would."""
    producer = Producer({"bootstrap.servers": bootstrap})
    for table, key, layout in (
        ("users", rows.USER + user.encode(), rows._USER),
        ("items", rows.ITEM + video.encode(), rows._ITEM),
    ):
        topic = changelog_topic(APP, "v1", table)
        partition = partition_of(key[2:], PARTITIONS)
        value = latest(read_committed(bootstrap, topic))[partition, key]
        row = np.frombuffer(bytearray(value[: layout.itemsize]), layout, 1)
        row["counts"][0, 0] += 1
        producer.produce(topic, row.tobytes() + value[layout.itemsize :], key, partition)
    assert not producer.flush(10)


def test_a_version_that_is_not_there(kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    with pytest.raises(UnknownVersion, match="no version v9 of headrace"):
        verify("v9")
