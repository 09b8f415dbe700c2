"""Who has been erased, and until when: known before a log is read anew, their events of before are as if they had never been.

Flows in: records of `users`. Flows out: until when what a user did is passed over. Always holds: a mark is no later than its own
record, so what is still to come is not passed over; at most `most` users are known, and of others nothing is passed over.
"""

import time
from collections.abc import Mapping, Sequence

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from numpy.typing import NDArray

from infra.kafka_security import confluent_options
from topics.catalog import decode_user_value
from topics.rejected import Rejected
from topics.specs import USERS, TopicsUnavailable

#: 100 MB or so; as many as there are users in memory.
MOST = 1_000_000
ANSWER_TIMEOUT_S = 30.0
_NEVER = np.iinfo(np.int64).min


class Erasures:
    """Marks by user (ids as UTF-8).

    Parameters
    ----------
    most : users
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._until: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._until)

    def note(self, key: bytes | None, value: bytes | None, timestamp: int) -> None:
        """Take a record of `users`."""
        # Most say nothing of it, and are not decoded. No name of JSON's is spelled otherwise by whoever writes them.
        if key is None or value is None or b'"erased_ms"' not in value:
            return
        try:
            erased_ms = decode_user_value(value).erased_ms
        except Rejected:
            return
        if erased_ms is not None and (key in self._until or len(self._until) < self._most):
            self._until[key] = max(self._until.get(key, 0), min(erased_ms, timestamp))

    def until(self, keys: Sequence[bytes | None]) -> NDArray[np.int64]:
        """Until when what each user did is passed over, ms; before any time there is for who is not erased."""
        find = self._until.get
        return np.fromiter((_NEVER if key is None else find(key, _NEVER) for key in keys), np.int64, len(keys))


def read_erasures(
    bootstrap: str, ends: Mapping[int, tuple[int, int]], into: Erasures, arrived_ms: int | None = None
) -> None:
    """Read `users` for erasures.

    Parameters
    ----------
    ends : first and next offset by partition
    into : takes them
    arrived_ms : each partition ends before its first record that arrived later

    Raises
    ------
    TopicsUnavailable
    """
    consumer = Consumer(
        {
            **confluent_options(bootstrap),
            "group.id": "headrace-erasures",  # required, never used: partitions are assigned by hand
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 20,
            "log_level": 2,  # a broker that is away would fill the log; errors reach us as messages
        }
    )
    left = {partition for partition, (low, high) in ends.items() if low < high}
    try:
        consumer.assign([TopicPartition(USERS, partition, ends[partition][0]) for partition in left])
        heard = time.monotonic()
        while left:
            messages = consumer.consume(5_000, timeout=0.05)
            for message in messages:
                error, partition = message.error(), message.partition() or 0
                arrived, offset = message.timestamp()[1], message.offset() or 0
                if error is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        left.discard(partition)
                    elif not error.retriable() and error.code() not in _PASSING:
                        raise TopicsUnavailable(f"Kafka at {bootstrap}: {USERS}[{partition}]: {error.str()}")
                elif (
                    partition in left and offset < ends[partition][1] and (arrived_ms is None or arrived <= arrived_ms)
                ):
                    into.note(message.key(), message.value(), arrived)
                else:
                    left.discard(partition)
            if messages:
                heard = time.monotonic()
            elif time.monotonic() - heard > ANSWER_TIMEOUT_S:
                raise TopicsUnavailable(f"Kafka at {bootstrap} gave nothing of {USERS} for {ANSWER_TIMEOUT_S:.0f} s")
    except KafkaException as error:
        raise TopicsUnavailable(f"Kafka at {bootstrap}: {error.args[0].str()}") from error
    finally:
        consumer.close()


#: What a consumer says while a broker is away; it tries again by itself.
_PASSING = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE})
