"""The versions of the state, and which of them serves: one record in Kafka, so that all workers agree.

A version is a group, its evidence, its changelogs and the stores made from them. The topic `{app}-versions` (one partition,
compacted) holds under the key `active` the name of the one that workers follow. Always holds: an empty topic means the
first version, `v1`.
"""

import re
import time
from collections.abc import Iterable
from typing import Annotated, Final, Literal

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from infra.kafka_security import confluent_options
from topics.specs import TopicSpec, TopicsUnavailable, evidence_topic, producer_config

KEY: Final = b"active"
#: How long a broker may take to answer, in seconds.
ANSWER_TIMEOUT_S = 20.0


class BadVersionRecord(ValueError):
    """The record of the active version cannot be read; the message says what to do."""


_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,60}\Z")]


class Active(msgspec.Struct, frozen=True):
    """The version that serves.

    Attributes
    ----------
    since_ms : when it took over, milliseconds since 1970
    previous : the version that served before, whose committed offsets say which dead letters are written; None if none did
    """

    version: _Name
    since_ms: int
    previous: _Name | None = None
    v: Literal[1] = 1


def versions_topic(app: str) -> str:
    """Name of the topic that says which version is active."""
    return f"{app}-versions"


def versions_spec(app: str, replication: int = 1) -> TopicSpec:
    """The topic that says which version is active; workers and `headrace replay` create it."""
    return TopicSpec(versions_topic(app), 1, {"cleanup.policy": "compact"}, replication)


def encode_active(active: Active) -> bytes:
    """Return the record's value."""
    return msgspec.json.encode(active)


def decode_active(value: bytes) -> Active:
    """Read the record's value. Raises BadVersionRecord."""
    try:
        return msgspec.json.decode(value, type=Active)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadVersionRecord(
            f"the record of the active version cannot be read ({error}): {value[:80]!r}. If a newer Headrace wrote it,"
            " change to that one; else set HEADRACE_VERSION, which keeps a worker to that version"
        ) from error


def next_version(known: Iterable[str]) -> str:
    """The next free name: `v2` after `v1`; names of another form do not count."""
    numbers = [int(name[1:]) for name in known if re.fullmatch(r"v[0-9]{1,9}", name, re.ASCII)]
    return f"v{max(numbers, default=0) + 1}"


def known_versions(bootstrap: str, app: str) -> list[str]:
    """Versions that have topics, in the order of their numbers. Raises TopicsUnavailable."""
    try:
        topics = AdminClient(confluent_options(bootstrap)).list_topics(timeout=ANSWER_TIMEOUT_S).topics
    except KafkaException as error:
        raise TopicsUnavailable(f"Kafka at {bootstrap}: {error.args[0].str()}") from error
    before, after = evidence_topic(app, "\0").split("\0")
    names = [topic[len(before) : -len(after)] for topic in topics if topic.startswith(before) and topic.endswith(after)]
    return sorted(names, key=lambda name: (len(name), name))


def versions_consumer(bootstrap: str, app: str) -> Consumer:
    """A consumer that reads the topic of versions from its beginning, and says where it ends."""
    consumer = Consumer(
        {
            **confluent_options(bootstrap),
            "group.id": f"{app}-versions",  # required, never used: the partition is assigned by hand
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 100,  # the end of a quiet topic is told after one wait; half a second by default
            "log_level": 0,
        }
    )
    consumer.assign([TopicPartition(versions_topic(app), 0, OFFSET_BEGINNING)])
    return consumer


def read_active(bootstrap: str, app: str) -> Active | None:
    """Read the active version; None if none has ever been recorded. The topic must exist.

    Raises
    ------
    BadVersionRecord
        The record is of another schema, or none of ours.
    TopicsUnavailable
        The brokers did not answer in time, or refused.
    """
    consumer = versions_consumer(bootstrap, app)
    active: Active | None = None
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    try:
        while time.monotonic() < deadline:
            message = consumer.poll(0.5)
            error = None if message is None else message.error()
            if message is None:
                continue
            if error is None:
                active = taken(message.key(), message.value(), active)
            elif error.code() == KafkaError._PARTITION_EOF:
                return active
            elif not error.retriable():
                raise TopicsUnavailable(f"Kafka at {bootstrap}: {versions_topic(app)}: {error.str()}")
    finally:
        consumer.close()
    raise TopicsUnavailable(f"Kafka at {bootstrap} did not give {versions_topic(app)} in {ANSWER_TIMEOUT_S:.0f} s")


def taken(key: bytes | None, value: bytes | None, before: Active | None) -> Active | None:
    """What is active after a record of the topic: no value forgets, another key says nothing."""
    if key != KEY:
        return before
    return None if value is None else decode_active(value)


def write_active(bootstrap: str, app: str, active: Active) -> None:
    """Record the active version; every worker that follows it switches. Raises TopicsUnavailable."""
    errors: list[KafkaError] = []

    def told(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            errors.append(error)

    producer = Producer(producer_config(bootstrap))
    producer.produce(versions_topic(app), encode_active(active), KEY, 0, on_delivery=told)
    if producer.flush(ANSWER_TIMEOUT_S) or errors:
        why = errors[0].str() if errors else f"no answer in {ANSWER_TIMEOUT_S:.0f} s"
        raise TopicsUnavailable(f"Kafka at {bootstrap}: {versions_topic(app)} was not written: {why}")
