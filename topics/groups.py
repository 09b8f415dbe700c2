"""What the group of a version tells from outside: who is in it, and how far it has come.

A checkpoint commits the places of its shard inside its transaction, so a group's committed offsets are those of its cuts.
"""

import time
from collections.abc import Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from infra.kafka_security import confluent_options
from topics.specs import INTERACTIONS, USERS, VIDEOS, TopicsUnavailable

#: Topics that all versions read.
SHARED = (INTERACTIONS, VIDEOS, USERS)
ANSWER_TIMEOUT_S = 20.0

_QUIET: dict[str, Any] = {"log_level": 0}  # what goes wrong is raised
#: A worker always has a transaction under way: what is committed before it is wanted, not the end of it.
_UNSTABLE: dict[str, Any] = {"isolation.level": "read_uncommitted"}

Places = dict[str, dict[int, int]]


class GroupBusy(RuntimeError):
    """The group has members, so it cannot be removed."""


def members(bootstrap: str, group: str) -> int:
    """How many consumers are in the group now; 0 if there is no such group. Raises TopicsUnavailable."""
    admin = _admin(bootstrap)
    try:
        # Asked about a group that nobody has used yet, the client waits in vain for its coordinator.
        if group not in _groups(admin):
            return 0
        future = admin.describe_consumer_groups([group], request_timeout=ANSWER_TIMEOUT_S)[group]
        return len(future.result().members)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return 0
        raise _unavailable(bootstrap, error) from error


def committed(bootstrap: str, group: str, partitions: int) -> Places:
    """Next offset of each partition of the shared topics that the group has committed. Raises TopicsUnavailable."""
    places: Places = {topic: {} for topic in SHARED}
    # Asked by a group's name, a consumer reads its offsets without joining it.
    consumer = Consumer(
        confluent_options(bootstrap) | {"group.id": group, "enable.auto.commit": False} | _UNSTABLE | _QUIET
    )
    try:
        if group in _groups(_admin(bootstrap)):
            asked = [TopicPartition(topic, partition) for topic in SHARED for partition in range(partitions)]
            for part in consumer.committed(asked, timeout=ANSWER_TIMEOUT_S):
                if part.error is None and part.offset >= 0:
                    places[part.topic][part.partition] = part.offset
    except KafkaException as error:
        raise _unavailable(bootstrap, error) from error
    finally:
        consumer.close()
    return places


def log_bounds(bootstrap: str, partitions: int, topics: Sequence[str] = SHARED) -> tuple[Places, Places]:
    """First and next offset of each partition of the topics. Raises TopicsUnavailable."""
    consumer = Consumer(confluent_options(bootstrap) | {"group.id": "headrace-bounds"} | _QUIET)
    lows: Places = {topic: {} for topic in topics}
    highs: Places = {topic: {} for topic in topics}
    try:
        for topic in topics:
            for partition in range(partitions):
                lows[topic][partition], highs[topic][partition] = bounds_of(consumer, TopicPartition(topic, partition))
    except KafkaException as error:
        raise _unavailable(bootstrap, error) from error
    finally:
        consumer.close()
    return lows, highs


def bounds_of(consumer: Consumer, where: TopicPartition, timeout_s: float = ANSWER_TIMEOUT_S) -> tuple[int, int]:
    """First and next offset of a partition; a leader that has just been chosen may still deny it. Raises KafkaException."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            low, high = consumer.get_watermark_offsets(where, timeout=timeout_s)
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return low, high


def delete_group(bootstrap: str, group: str) -> bool:
    """Delete the group with its offsets; whether there was one. Raises GroupBusy, TopicsUnavailable."""
    admin = _admin(bootstrap)
    try:
        if group not in _groups(admin):
            return False
        admin.delete_consumer_groups([group], request_timeout=ANSWER_TIMEOUT_S)[group].result()
    except KafkaException as error:
        code = error.args[0].code()
        if code == KafkaError.GROUP_ID_NOT_FOUND:
            return False
        if code == KafkaError.NON_EMPTY_GROUP:
            raise GroupBusy(f"the group {group} has members") from error
        raise _unavailable(bootstrap, error) from error
    return True


def delete_topics(bootstrap: str, names: Sequence[str]) -> list[str]:
    """Delete topics with all that is in them; returns those that were there. Raises TopicsUnavailable."""
    deleted = []
    admin = _admin(bootstrap)
    for name, future in admin.delete_topics(list(names), operation_timeout=ANSWER_TIMEOUT_S).items():
        try:
            future.result()
            deleted.append(name)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise _unavailable(bootstrap, error) from error
    return deleted


def _admin(bootstrap: str) -> AdminClient:
    """Keep it until its futures are done: those of a client that is gone never are."""
    return AdminClient(confluent_options(bootstrap) | _QUIET)


def _groups(admin: AdminClient) -> set[str]:
    return {group.group_id for group in admin.list_consumer_groups(request_timeout=ANSWER_TIMEOUT_S).result().valid}


def _unavailable(bootstrap: str, error: KafkaException) -> TopicsUnavailable:
    return TopicsUnavailable(f"Kafka at {bootstrap}: {error.args[0].str()}")
