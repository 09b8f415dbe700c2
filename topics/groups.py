"""What the group of a version tells from outside: who is in it, and how far it has come.

A checkpoint commits the places of its shard inside its transaction, so a group's committed offsets are those of its cuts.
"""

from collections.abc import Sequence

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from topics.specs import INTERACTIONS, USERS, VIDEOS, TopicsUnavailable

#: Topics that all versions read.
SHARED = (INTERACTIONS, VIDEOS, USERS)
ANSWER_TIMEOUT_S = 20.0

Places = dict[str, dict[int, int]]


class GroupBusy(RuntimeError):
    """The group has members, so it cannot be removed."""


def members(bootstrap: str, group: str) -> int:
    """How many consumers are in the group now; 0 if there is no such group. Raises TopicsUnavailable."""
    future = _admin(bootstrap).describe_consumer_groups([group], request_timeout=ANSWER_TIMEOUT_S)[group]
    try:
        return len(future.result().members)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return 0
        raise _unavailable(bootstrap, error) from error


def committed(bootstrap: str, group: str) -> Places:
    """Next offset of each partition of the shared topics that the group has committed. Raises TopicsUnavailable."""
    future = _admin(bootstrap).list_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(group)], request_timeout=ANSWER_TIMEOUT_S
    )[group]
    places: Places = {topic: {} for topic in SHARED}
    try:
        for part in future.result().topic_partitions:
            if part.error is None and part.offset >= 0 and part.topic in places:
                places[part.topic][part.partition] = part.offset
    except KafkaException as error:
        if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
            raise _unavailable(bootstrap, error) from error
    return places


def log_bounds(bootstrap: str, partitions: int, topics: Sequence[str] = SHARED) -> tuple[Places, Places]:
    """First and next offset of each partition of the topics. Raises TopicsUnavailable."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "headrace-bounds", "enable.auto.commit": False})
    lows: Places = {topic: {} for topic in topics}
    highs: Places = {topic: {} for topic in topics}
    try:
        for topic in topics:
            for partition in range(partitions):
                bounds = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=ANSWER_TIMEOUT_S)
                lows[topic][partition], highs[topic][partition] = bounds
    except KafkaException as error:
        raise _unavailable(bootstrap, error) from error
    finally:
        consumer.close()
    return lows, highs


def delete_group(bootstrap: str, group: str) -> bool:
    """Delete the group with its offsets; whether there was one. Raises GroupBusy, TopicsUnavailable."""
    future = _admin(bootstrap).delete_consumer_groups([group], request_timeout=ANSWER_TIMEOUT_S)[group]
    try:
        future.result()
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
    for name, future in _admin(bootstrap).delete_topics(list(names), operation_timeout=ANSWER_TIMEOUT_S).items():
        try:
            future.result()
            deleted.append(name)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise _unavailable(bootstrap, error) from error
    return deleted


def _admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})


def _unavailable(bootstrap: str, error: KafkaException) -> TopicsUnavailable:
    return TopicsUnavailable(f"Kafka at {bootstrap}: {error.args[0].str()}")
