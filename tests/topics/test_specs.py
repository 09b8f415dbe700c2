"""Topics are created as they must be, and an existing one that differs stops start-up by name."""

import time
import uuid

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from topics.partitions import partition_of
from topics.specs import TopicMismatch, TopicSpec, TopicsUnavailable, ensure_topics, producer_config, specs


def test_all_topics_of_a_version_share_one_partition_count() -> None:
    topics = specs("app", "v2", 6, replication=3)
    assert [spec.name for spec in topics] == [
        "interactions",
        "interactions.dead",
        "videos",
        "users",
        "recommendations",
        "app.v2.evidence",
        "app.v2-users-changelog",
        "app.v2-items-changelog",
    ]
    assert {(spec.partitions, spec.replication) for spec in topics} == {(6, 3)}


def test_events_are_kept_for_ever_and_stamped_on_arrival() -> None:
    config = {spec.name: spec.config for spec in specs("app", "v1", 4)}
    assert config["interactions"]["retention.ms"] == "-1"
    assert config["interactions"]["retention.bytes"] == "-1"
    assert config["interactions"]["cleanup.policy"] == "delete"
    for name in ("interactions", "videos", "users", "interactions.dead", "app.v1.evidence"):
        assert config[name]["message.timestamp.type"] == "LogAppendTime"
    for name in ("videos", "users", "app.v1-users-changelog", "app.v1-items-changelog"):
        assert config[name]["cleanup.policy"] == "compact"


def test_absent_broker_is_an_error_that_names_it() -> None:
    started = time.monotonic()
    with pytest.raises(TopicsUnavailable, match=r"127\.0\.0\.1:9\b.*KAFKA_BOOTSTRAP_SERVERS"):
        ensure_topics("127.0.0.1:9", specs("app", "v1", 1), timeout_s=1)
    assert time.monotonic() - started < 5


@pytest.mark.broker
def test_create_then_check_then_name_what_differs(bootstrap: str) -> None:
    prefix = uuid.uuid4().hex
    wanted = [
        TopicSpec(f"{prefix}-{spec.name}", spec.partitions, spec.config, spec.replication)
        for spec in specs("app", "v1", 2)
    ]
    names = [spec.name for spec in wanted]
    assert ensure_topics(bootstrap, wanted) == names
    assert ensure_topics(bootstrap, wanted) == []  # and all settings are found as they were asked for

    first = names[0]
    with pytest.raises(TopicMismatch, match=f"{first}: partitions must be 3, found 2"):
        ensure_topics(bootstrap, [TopicSpec(first, 3)])
    with pytest.raises(TopicMismatch, match=f"{first}: cleanup.policy must be compact, found delete"):
        ensure_topics(bootstrap, [TopicSpec(first, 2, {"cleanup.policy": "compact"})])
    found = AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=10).topics[first]
    assert len(found.partitions) == 2  # nothing was changed


@pytest.mark.broker
def test_an_invalid_setting_is_refused_by_the_broker(bootstrap: str) -> None:
    with pytest.raises(TopicsUnavailable, match=r"no\.such\.setting"):
        ensure_topics(bootstrap, [TopicSpec(uuid.uuid4().hex, 1, {"no.such.setting": "1"})])


@pytest.mark.broker
def test_producer_and_partition_of_agree(bootstrap: str) -> None:
    topic = uuid.uuid4().hex
    ensure_topics(bootstrap, [TopicSpec(topic, 5, {"message.timestamp.type": "LogAppendTime"})])
    producer = Producer(producer_config(bootstrap))
    keys = [*(str(user).encode() for user in range(200)), "ünïcode".encode(), b"\x80\xff\x00", b"x" * 128]
    for key in keys:
        producer.produce(topic, key=key, value=b"", timestamp=1_650_812_741_436)
    assert producer.flush(30) == 0

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": topic, "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(5)])
    try:
        records: list[Message] = []
        deadline = time.monotonic() + 30
        while len(records) < len(keys) and time.monotonic() < deadline:
            records += consumer.consume(len(keys), timeout=1)
    finally:
        consumer.close()
    assert sorted(record.key() or b"" for record in records) == sorted(keys)
    assert all(record.partition() == partition_of(record.key() or b"", 5) for record in records)
    # arrival, not the 2022 that the producer gave: the broker must not expire a replay
    assert all(abs(record.timestamp()[1] / 1000 - time.time()) < 600 for record in records)
