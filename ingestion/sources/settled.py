"""A topic as a reader of committed records sees it, up to all that was written before the reading began.

A partition's committed part may end before a record that is committed already, where another producer has a transaction open: here
such a transaction is waited for. Always holds: what was committed before `advance` was called is in what it yields.
"""

import time
from collections.abc import Iterator
from typing import Final

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from infra.kafka_security import confluent_options
from topics.specs import TopicsUnavailable, quiet_log

ANSWER_TIMEOUT_S: Final = 30.0  # beyond the 10 s after which the broker ends a dead producer's transaction
_PAUSE_S: Final = 0.02
_MANY: Final = 5_000
#: What a consumer says while a broker is away; it tries again by itself.
_PASSING: Final = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE})


class SettledLog:
    """Reads one topic from its beginning, and on from there at each `advance`.

    Parameters
    ----------
    bootstrap : broker addresses
    topic : must exist
    """

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap, self._topic = bootstrap, topic
        self._admin = AdminClient(confluent_options(bootstrap), logger=quiet_log())
        self._consumer = Consumer(
            {
                **confluent_options(bootstrap),
                "group.id": "headrace-sources",  # required, never used: partitions are assigned by hand
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",  # compaction may have taken the first records away
                "fetch.wait.max.ms": 20,
                "log_level": 2,  # a broker that is away would fill the log; errors reach us as messages
            }
        )
        try:
            found = self._consumer.list_topics(topic, timeout=ANSWER_TIMEOUT_S).topics[topic]
        except KafkaException as error:
            raise self._unavailable(error.args[0].str()) from error
        self._next = dict.fromkeys(sorted(found.partitions), 0)

    def advance(self) -> Iterator[Message]:
        """Records committed since the last call, those of a partition in order. Raises TopicsUnavailable."""
        ends = self._settled_ends()
        left = {partition for partition, end in ends.items() if self._next[partition] < end}
        # Assigned anew each time: an end is reported once an assignment.
        self._consumer.assign([TopicPartition(self._topic, partition, self._next[partition]) for partition in left])
        heard = time.monotonic()
        while left:
            messages = self._consumer.consume(_MANY, timeout=0.05)
            for message in messages:
                error, partition, offset = message.error(), message.partition() or 0, message.offset() or 0
                if error is None:
                    self._next[partition] = offset + 1
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    self._next[partition] = offset
                elif error.code() not in _PASSING:
                    raise self._unavailable(error.str())
                if self._next[partition] >= ends[partition]:
                    left.discard(partition)
            if messages:
                heard = time.monotonic()
            elif time.monotonic() - heard > ANSWER_TIMEOUT_S:
                raise self._unavailable(f"gave nothing for {ANSWER_TIMEOUT_S:.0f} s")
        self._consumer.unassign()

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()

    def _settled_ends(self) -> dict[int, int]:
        """Ends of now, once nothing before them is undecided."""
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        try:
            ends = self._ends(IsolationLevel.READ_UNCOMMITTED)
            while True:
                committed = self._ends(IsolationLevel.READ_COMMITTED)
                if all(committed[partition] >= end for partition, end in ends.items()):
                    return ends
                if time.monotonic() > deadline:
                    raise self._unavailable(f"a transaction has been open for {ANSWER_TIMEOUT_S:.0f} s")
                time.sleep(_PAUSE_S)
        except KafkaException as error:
            raise self._unavailable(error.args[0].str()) from error

    def _ends(self, isolation: IsolationLevel) -> dict[int, int]:
        latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call] # the client's type hints lack it
        asked = {TopicPartition(self._topic, partition): latest for partition in self._next}
        futures = self._admin.list_offsets(asked, isolation_level=isolation, request_timeout=ANSWER_TIMEOUT_S)
        return {each.partition: future.result().offset for each, future in futures.items()}

    def _unavailable(self, why: str) -> TopicsUnavailable:
        return TopicsUnavailable(f"Kafka at {self._bootstrap}: {self._topic}: {why}")
