"""What is produced is in the log, once and in order, or an error says that it is not."""

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from infra.embedded_kafka import EmbeddedKafka
from ingestion.produce import DeliveryFailed, produce_events, produce_users, produce_videos
from ingestion.simulate import Audience
from topics.catalog import User, Video, decode_video
from topics.interactions import Interaction, decode
from topics.rejected import Rejected
from topics.specs import TopicSpec, ensure_topics

PARTITIONS = 3


def new_topic(bootstrap: str) -> str:
    topic = f"produce-{uuid.uuid4().hex}"
    ensure_topics(bootstrap, [TopicSpec(topic, PARTITIONS, {"message.timestamp.type": "LogAppendTime"})])
    return topic


def read_all(bootstrap: str, topic: str) -> list[Message]:
    """Return every record of the topic, each partition in order."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": topic, "enable.auto.commit": False, "auto.offset.reset": "error"}
    )
    places = [TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)]
    records: list[Message] = []
    try:
        left = sum(consumer.get_watermark_offsets(place, timeout=20)[1] for place in places)
        consumer.assign(places)
        deadline = time.monotonic() + 20
        while left and time.monotonic() < deadline:
            found = consumer.consume(min(left, 1000), timeout=1)
            assert all(record.error() is None for record in found)
            records += found
            left -= len(found)
    finally:
        consumer.close()
    assert left == 0
    return records


def decoded(records: list[Message]) -> list[Interaction]:
    return [
        decode(
            record.key(),
            record.value(),
            record.timestamp()[1],
            partition=record.partition() or 0,
            partitions=PARTITIONS,
            future_tolerance_ms=0,
        )
        for record in records
    ]


def by_user(events: list[Interaction]) -> dict[str, list[Interaction]]:
    users: dict[str, list[Interaction]] = {}
    for event in events:
        users.setdefault(event.user_id, []).append(event)
    return users


@pytest.mark.broker
def test_all_events_arrive_once_and_in_order(bootstrap: str) -> None:
    topic = new_topic(bootstrap)
    events = list(Audience(1, users=50, videos=100).events(5_000))
    seen: list[int] = []
    produced = produce_events(bootstrap, events, topic=topic, progress=seen.append)
    assert produced.records == 5_000
    assert produced.seconds > 0
    assert seen == sorted(seen)
    assert seen[-1] == 5_000
    records = read_all(bootstrap, topic)
    assert produced.value_bytes == sum(len(record.value() or b"") for record in records)
    assert by_user(decoded(records)) == by_user(events)


@pytest.mark.broker
def test_videos_and_users_arrive_and_none_is_a_tombstone(bootstrap: str) -> None:
    topic = new_topic(bootstrap)
    video = Video(title="x")
    assert produce_videos(bootstrap, [("a", video), ("b", None), ("é", video)], topic=topic).records == 3
    found = dict(
        decode_video(record.key(), record.value(), partition=record.partition() or 0, partitions=PARTITIONS)
        for record in read_all(bootstrap, topic)
    )
    assert found == {"a": video, "b": None, "é": video}
    assert produce_users(bootstrap, [("a", User(language="en"))], topic=topic).records == 1
    assert len(read_all(bootstrap, topic)) == 4


@pytest.mark.broker
def test_speed_is_a_multiple_of_real_time(bootstrap: str) -> None:
    topic = new_topic(bootstrap)
    events = [Interaction(str(number), "u", "v", "like", 1_000_000 + 1_000 * number) for number in range(5)]
    produced = produce_events(bootstrap, events, topic=topic, speed=8.0)  # 4 s of events
    assert 0.5 <= produced.seconds < 3
    assert [event.event_id for event in decoded(read_all(bootstrap, topic))] == list("01234")


@pytest.mark.broker
def test_what_was_sent_before_an_interruption_is_in_the_log(bootstrap: str) -> None:
    topic = new_topic(bootstrap)

    def interrupted() -> Iterator[Interaction]:
        yield from Audience(1, users=5, videos=20).events(1_500)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        produce_events(bootstrap, interrupted(), topic=topic)
    assert len(read_all(bootstrap, topic)) == 1_500


@pytest.mark.broker
def test_a_topic_that_is_absent_is_an_error(bootstrap: str) -> None:
    event = Interaction("e", "u", "v", "like", 1)
    with pytest.raises(DeliveryFailed, match="0 of 1 records confirmed"):
        produce_events(bootstrap, [event], topic=uuid.uuid4().hex, delivery_timeout_s=2)


def test_a_broker_that_is_absent_is_an_error() -> None:
    event = Interaction("e", "u", "v", "like", 1)
    started = time.monotonic()
    with pytest.raises(DeliveryFailed, match="interactions: 0 of 1 records confirmed") as caught:
        produce_events("127.0.0.1:9", [event], delivery_timeout_s=1)
    assert (caught.value.sent, caught.value.confirmed) == (1, 0)
    assert time.monotonic() - started < 10


def test_what_consumers_would_refuse_is_not_sent() -> None:
    with pytest.raises(Rejected, match="bad_id"):
        produce_events("127.0.0.1:9", [Interaction("", "u", "v", "like", 1)])
    with pytest.raises(Rejected, match="videos 'long'"):
        produce_videos("127.0.0.1:9", [("long", Video(title="x" * 501))])
    with pytest.raises(Rejected, match="bad_id"):
        produce_users("127.0.0.1:9", [("", User())])


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan")])
def test_time_does_not_stand_still_nor_run_back(speed: float) -> None:
    with pytest.raises(ValueError, match="speed must be above 0"):
        produce_events("127.0.0.1:9", [], speed=speed)


@pytest.mark.broker
def test_a_broker_that_dies_and_comes_back_loses_and_doubles_nothing(tmp_path: Path) -> None:
    kafka = EmbeddedKafka(tmp_path)
    events = list(Audience(1, users=20, videos=100).events(3_000))
    with kafka:
        bootstrap = kafka.bootstrap
        topic = new_topic(bootstrap)
        killed, revived = threading.Event(), threading.Event()

        def kill_and_restart() -> None:
            killed.wait(30)
            kafka.kill()
            assert kafka.start() == bootstrap
            revived.set()

        def slowly() -> Iterator[Interaction]:
            for number, event in enumerate(events):
                if number == 1_000:
                    killed.set()
                if number < 2_000 and number % 20 == 0:
                    time.sleep(0.01)
                yield event

        thread = threading.Thread(target=kill_and_restart)
        thread.start()
        produced = produce_events(bootstrap, slowly(), topic=topic)
        thread.join(60)
        assert revived.is_set()
        assert produced.records == 3_000
        assert by_user(decoded(read_all(bootstrap, topic))) == by_user(events)
