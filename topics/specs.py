"""The topics of Headrace and the settings without which they would lose data, created or checked at start-up."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.cimpl import NewTopic

from infra.kafka_security import confluent_options

INTERACTIONS: Final = "interactions"
DEAD: Final = "interactions.dead"
VIDEOS: Final = "videos"
USERS: Final = "users"
RECOMMENDATIONS: Final = "recommendations"

_DAY_MS: Final = 24 * 3600 * 1000
# Arrival, not event time: with create time, the broker would expire a replayed event of 2022 at once, and "far in the
# future" could not be judged alike in a replay.
_ARRIVAL: Final = {"message.timestamp.type": "LogAppendTime"}
_COMPACT: Final = {"cleanup.policy": "compact"}


@dataclass(frozen=True)
class TopicSpec:
    """A topic as it must be: `config` names every setting that matters; others are the broker's business."""

    name: str
    partitions: int
    config: dict[str, str] = field(default_factory=dict)
    replication: int = 1


class TopicMismatch(ValueError):
    """An existing topic is not as it must be. Its data may matter, so nobody but the operator changes it."""

    def __init__(self, topic: str, setting: str, expected: str, found: str) -> None:
        super().__init__(
            f"topic {topic}: {setting} must be {expected}, found {found}. Alter or delete the topic"
            + (", or set HEADRACE_PARTITIONS." if setting == "partitions" else ".")
        )
        self.topic, self.setting, self.expected, self.found = topic, setting, expected, found


class TopicsUnavailable(ConnectionError):
    """The brokers did not answer or refused; the message says which and what."""


def evidence_topic(app: str, version: str) -> str:
    """Name of the topic that carries evidence blocks from users' shards to items' shards."""
    return f"{app}.{version}.evidence"


def changelog_topic(app: str, version: str, table: str) -> str:
    """Name of a table's changelog: what Faust derives from the app id `{app}.{version}`."""
    return f"{app}.{version}-{table}-changelog"


def specs(app: str, version: str, partitions: int, replication: int = 1) -> list[TopicSpec]:
    """List every topic of one version; all have the same partition count, as a shard is one partition of each.

    Parameters
    ----------
    app, version : prefix of the topics that belong to a version alone; events and catalogue are shared by all
    partitions, replication : of every topic
    """

    def topic(name: str, **config: str) -> TopicSpec:
        return TopicSpec(name, partitions, {key.replace("_", "."): value for key, value in config.items()}, replication)

    return [
        topic(INTERACTIONS, cleanup_policy="delete", retention_ms="-1", retention_bytes="-1", **_ARRIVAL),
        # larger than the default: a record at the limit of `interactions` must fit in with its headers
        topic(DEAD, cleanup_policy="delete", retention_ms=str(30 * _DAY_MS), max_message_bytes="2300000", **_ARRIVAL),
        topic(VIDEOS, **_COMPACT, **_ARRIVAL),
        topic(USERS, **_COMPACT, **_ARRIVAL),
        # what was served, for lessons: without it, they are made from impressions alone
        topic(RECOMMENDATIONS, cleanup_policy="delete", retention_ms=str(30 * _DAY_MS), **_ARRIVAL),
        topic(evidence_topic(app, version), cleanup_policy="delete", retention_ms=str(7 * _DAY_MS), **_ARRIVAL),
        topic(changelog_topic(app, version, "users"), **_COMPACT),
        topic(changelog_topic(app, version, "items"), **_COMPACT),
    ]


def producer_config(bootstrap: str) -> dict[str, Any]:
    """Return settings of a confluent-kafka producer that agrees with us on partitions and loses and doubles nothing."""
    return {
        **confluent_options(bootstrap),
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "compression.type": "lz4",
        "linger.ms": 20,
        "queue.buffering.max.messages": 200_000,
        "queue.buffering.max.kbytes": 65_536,  # bounds memory; the default is 1 GB
    }


def ensure_topics(bootstrap: str, topics: Sequence[TopicSpec], timeout_s: float = 30.0) -> list[str]:
    """Create what is missing and check what exists; change nothing that exists.

    Returns
    -------
    list[str]
        Names of the topics that this call created. All topics have leaders when it returns.

    Raises
    ------
    TopicMismatch
        An existing topic differs: names the topic, the setting, what is expected and what was found.
    TopicsUnavailable
        The brokers did not answer in time, or refused.
    """
    deadline = time.monotonic() + timeout_s
    # the client's log would say once a second on stderr what the error says once
    admin = AdminClient(confluent_options(bootstrap), logger=quiet_log())
    try:
        existing = _partition_counts(admin, bootstrap, timeout_s)
        missing = [spec for spec in topics if spec.name not in existing]
        created = _create(admin, missing, timeout_s)
        found = _await_leaders(admin, bootstrap, {spec.name for spec in topics}, deadline)
        _check(admin, [spec for spec in topics if spec.name not in created], found, timeout_s)
    except KafkaException as error:
        raise TopicsUnavailable(f"Kafka at {bootstrap}: {error.args[0].str()}") from error
    return created


def quiet_log() -> logging.Logger:
    """A logger for admin clients that says nothing: their errors are raised."""
    logger = logging.getLogger("headrace.topics.admin")
    logger.setLevel(logging.CRITICAL)
    return logger


def _partition_counts(admin: AdminClient, bootstrap: str, timeout_s: float) -> dict[str, int]:
    """Partition count of every existing topic; 0 while a partition has no leader."""
    try:
        cluster = admin.list_topics(timeout=max(timeout_s, 0.1))
    except KafkaException as error:
        raise TopicsUnavailable(
            f"no answer from Kafka at {bootstrap} within {timeout_s:.0f} s ({error.args[0].str()}): "
            "is it running, and is KAFKA_BOOTSTRAP_SERVERS right?"
        ) from error
    return {
        name: len(topic.partitions) if all(part.leader >= 0 for part in topic.partitions.values()) else 0
        for name, topic in cluster.topics.items()
    }


def _create(admin: AdminClient, missing: Sequence[TopicSpec], timeout_s: float) -> list[str]:
    if not missing:
        return []
    wanted = [
        NewTopic(spec.name, num_partitions=spec.partitions, replication_factor=spec.replication, config=spec.config)
        for spec in missing
    ]
    created = []
    for name, future in admin.create_topics(wanted, operation_timeout=timeout_s, request_timeout=timeout_s).items():
        try:
            future.result()
            created.append(name)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another worker was faster: check it below
                raise
    return created


def _await_leaders(admin: AdminClient, bootstrap: str, names: set[str], deadline: float) -> dict[str, int]:
    while True:
        left_s = deadline - time.monotonic()
        found = _partition_counts(admin, bootstrap, left_s)
        waiting = sorted(name for name in names if not found.get(name))
        if not waiting:
            return found
        if left_s <= 0:
            raise TopicsUnavailable(f"Kafka at {bootstrap}: no leader yet for {', '.join(waiting)}")
        time.sleep(0.05)


def _check(admin: AdminClient, topics: Sequence[TopicSpec], found: dict[str, int], timeout_s: float) -> None:
    if not topics:
        return
    for spec in topics:
        if found[spec.name] != spec.partitions:
            raise TopicMismatch(spec.name, "partitions", str(spec.partitions), str(found[spec.name]))
    resources = {spec.name: ConfigResource(ConfigResource.Type.TOPIC, spec.name) for spec in topics}
    futures = admin.describe_configs(list(resources.values()), request_timeout=timeout_s)
    for spec in topics:
        actual = futures[resources[spec.name]].result()
        for setting, expected in spec.config.items():
            value = actual[setting].value
            if value != expected:
                raise TopicMismatch(spec.name, setting, expected, str(value))
