"""What a cluster says of its topics, as it is: for whoever looks, and changes nothing."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aiokafka.client import AIOKafkaClient
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._listoffsets import OffsetSpec

from infra.kafka_security import aiokafka_options, confluent_options
from topics.specs import TopicsUnavailable, quiet_log

_FETCH: Final = 1
#: The highest version of Fetch that releases speak: nothing else that a broker says tells which one it is.
_RELEASES: Final = ((18, "4.1"), (17, "3.9"), (16, "3.7"), (15, "3.5"), (13, "3.1"), (12, "2.7"))


@dataclass(frozen=True)
class TopicState:
    """A topic as it is.

    Attributes
    ----------
    leaderless, thin : partitions without a leader, and with fewer replicas in sync than they have
    replication : the fewest of a partition
    config : every setting, the broker's defaults too
    """

    name: str
    partitions: int
    leaderless: int
    thin: int
    replication: int
    config: dict[str, str]


def topic_states(bootstrap: str, names: Sequence[str], timeout_s: float) -> dict[str, TopicState]:
    """Those of `names` that exist. Raises TopicsUnavailable."""
    admin = AdminClient(confluent_options(bootstrap), logger=quiet_log())
    try:
        found = admin.list_topics(timeout=timeout_s).topics
        there = [name for name in names if name in found]
        resources = {name: ConfigResource(ConfigResource.Type.TOPIC, name) for name in there}
        futures = admin.describe_configs(list(resources.values()), request_timeout=timeout_s) if there else {}
        states = {}
        for name in there:
            parts = list(found[name].partitions.values())
            config = {key: str(entry.value) for key, entry in futures[resources[name]].result().items()}
            states[name] = TopicState(
                name,
                len(parts),
                sum(part.leader < 0 for part in parts),
                sum(len(part.isrs) < len(part.replicas) for part in parts),
                min((len(part.replicas) for part in parts), default=0),
                config,
            )
    except KafkaException as error:
        raise TopicsUnavailable(f"Kafka at {bootstrap}: {error.args[0].str()}") from error
    return states


def latest_arrival_ms(bootstrap: str, topic: str, partitions: int, timeout_s: float) -> tuple[int, int, int] | None:
    """Partition, offset and arrival (milliseconds since 1970) of the topic's latest record; None if it has none.

    Raises TopicsUnavailable.
    """
    admin = AdminClient(confluent_options(bootstrap), logger=quiet_log())
    latest_one = OffsetSpec.max_timestamp()  # type: ignore[no-untyped-call] # theirs
    asked = {TopicPartition(topic, partition): latest_one for partition in range(partitions)}
    try:
        answers = admin.list_offsets(asked, request_timeout=timeout_s)
        found = [(where.partition, answer.result()) for where, answer in answers.items()]
    except KafkaException as error:
        raise TopicsUnavailable(f"Kafka at {bootstrap}: {error.args[0].str()}") from error
    latest = max(found, key=lambda each: each[1].timestamp, default=None)
    if latest is None or latest[1].timestamp <= 0:
        return None
    return latest[0], latest[1].offset, latest[1].timestamp


def release(bootstrap: str, timeout_s: float) -> str | None:
    """The release that a broker is of at least, as `3.9`; None if it is older than all we know, or does not say."""

    async def speaks() -> int:
        client = AIOKafkaClient(**aiokafka_options(bootstrap), request_timeout_ms=int(timeout_s * 1000))
        try:
            await client.bootstrap()
            # aiokafka asks every broker and keeps the answer to itself.
            connection = await client._get_conn(client.get_random_node())
            return int(connection._versions[_FETCH][1]) if connection is not None else 0
        finally:
            await client.close()

    highest = asyncio.run(asyncio.wait_for(speaks(), timeout_s))
    return next((name for version, name in _RELEASES if highest >= version), None)
