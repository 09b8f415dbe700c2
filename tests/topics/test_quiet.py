"""Ends of one moment: no transaction is half in them, whoever writes meanwhile."""

import threading
import uuid

import pytest
from confluent_kafka import Producer

from topics.quiet import NeverQuiet, quiet_ends
from topics.specs import TopicSpec, TopicsUnavailable, ensure_topics

pytestmark = pytest.mark.broker


@pytest.fixture
def topics(bootstrap: str) -> list[str]:
    names = [f"quiet-{uuid.uuid4().hex[:8]}-{table}" for table in ("users", "items")]
    ensure_topics(bootstrap, [TopicSpec(name, 2) for name in names])
    return names


def transactional(bootstrap: str) -> Producer:
    producer = Producer(
        {"bootstrap.servers": bootstrap, "transactional.id": uuid.uuid4().hex, "linger.ms": 0, "log_level": 2}
    )
    producer.init_transactions(30)
    return producer


def test_an_open_transaction_is_waited_for(bootstrap: str, topics: list[str]) -> None:
    assert quiet_ends(bootstrap, topics, 2) == {(topic, partition): 0 for topic in topics for partition in (0, 1)}
    producer = transactional(bootstrap)
    producer.begin_transaction()
    producer.produce(topics[0], b"row", b"key", 0)
    assert producer.flush(10) == 0
    with pytest.raises(NeverQuiet, match="try again when less arrives"):
        quiet_ends(bootstrap, topics, 2, 0.2)
    committing = threading.Timer(0.2, producer.commit_transaction)
    committing.start()
    ends = quiet_ends(bootstrap, topics, 2, 20)
    committing.join()
    # The record, and the marker behind it.
    assert ends == {(topics[0], 0): 2, (topics[0], 1): 0, (topics[1], 0): 0, (topics[1], 1): 0}


def test_no_end_is_between_the_halves_of_a_transaction(bootstrap: str, topics: list[str]) -> None:
    producer = transactional(bootstrap)
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            producer.begin_transaction()
            for topic in topics:
                producer.produce(topic, b"row", b"key", 0)
            producer.commit_transaction(30)
            over.wait(0.01)

    writing = threading.Thread(target=write)
    writing.start()
    try:
        found = [quiet_ends(bootstrap, topics, 2, 30) for _ in range(20)]
    finally:
        over.set()
        writing.join()
    assert all(ends[topics[0], 0] == ends[topics[1], 0] for ends in found)
    assert len({ends[topics[0], 0] for ends in found}) > 1


def test_a_broker_or_topic_that_is_not_there_is_an_operators_error(bootstrap: str) -> None:
    with pytest.raises(TopicsUnavailable):
        quiet_ends(bootstrap, ["quiet-none"], 1)
