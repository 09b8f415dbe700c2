"""What a topic holds for a reader of committed records: read from the beginning, and on from there as it grows."""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from infra.kafka_reader import committed_reader
from infra.kafka_security import confluent_options

ANSWER_TIMEOUT_S = 30.0
_BATCH = 5_000
#: Offsets from the end in which the last record is looked for first; markers and aborted records take offsets too.
_TAIL = 100


class TopicStalled(Exception):
    """A topic gave nothing for a while and did not end."""


class CommittedLog:
    """A reader of a topic's committed records, from the beginning.

    Parameters
    ----------
    bootstrap : broker addresses
    topic : must exist
    """

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.topic = topic
        self._consumer = committed_reader(
            bootstrap,
            "headrace-reader",
            {
                "fetch.wait.max.ms": 20,
            },
        )
        self._places = dict.fromkeys(self._partitions(), 0)

    def advance(self) -> Iterator[Message]:
        """Records that were committed since the last call, those of a partition in order; ends at the present end.

        Raises
        ------
        TopicStalled, KafkaException
            The topic cannot be read.
        """
        for message in self._until_ends([TopicPartition(self.topic, *place) for place in self._places.items()]):
            self._places[message.partition() or 0] = (message.offset() or 0) + 1
            yield message

    def since(self, places: Mapping[int, int]) -> Iterator[Message]:
        """Committed records from these offsets by partition to the present ends. Raises as `advance`."""
        return self._until_ends([TopicPartition(self.topic, *place) for place in places.items()])

    def ends(self) -> dict[int, int]:
        """Offset behind what is committed now, by partition."""
        return {partition: self._watermarks(partition)[1] for partition in self._places}

    def last_offsets(self) -> dict[int, int] | None:
        """Offset of each partition's last committed record, -1 without one; None while a transaction is open."""
        window = _TAIL
        last: dict[int, int] = {}
        while True:
            marks = {p: self._watermarks(p) for p in self._places if p not in last}
            starts = {p: max(low, high - window) for p, (low, high) in marks.items()}
            ends: dict[int, int] = {}
            places = [TopicPartition(self.topic, p, start) for p, start in starts.items()]
            for message in self._until_ends(places, ends):
                last[message.partition() or 0] = message.offset() or 0
            if any(ends[p] < high for p, (_, high) in marks.items()):
                return None
            last |= {p: -1 for p, (low, _) in marks.items() if p not in last and starts[p] == low}
            if last.keys() == self._places.keys():
                return last
            window *= 10

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()

    def __enter__(self) -> "CommittedLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _partitions(self) -> list[int]:
        topic = self._consumer.list_topics(self.topic, timeout=ANSWER_TIMEOUT_S).topics[self.topic]
        return sorted(topic.partitions)

    def _watermarks(self, partition: int) -> tuple[int, int]:
        low, high = self._consumer.get_watermark_offsets(
            TopicPartition(self.topic, partition), timeout=ANSWER_TIMEOUT_S
        )
        return low, high

    def _until_ends(self, places: list[TopicPartition], ends: dict[int, int] | None = None) -> Iterator[Message]:
        """Records from `places` to each partition's end; `ends` receives the offsets of the ends."""
        # Assigned anew each time: an end is reported once an assignment.
        self._consumer.assign(places)
        left = {place.partition for place in places}
        heard = time.monotonic()
        while left:
            messages = self._consumer.consume(_BATCH, timeout=0.05)
            for message in messages:
                error, partition = message.error(), message.partition() or 0
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(partition)
                    if ends is not None:
                        ends[partition] = message.offset() or 0
                elif error.code() not in _PASSING:
                    raise KafkaException(error)
            if messages:
                heard = time.monotonic()
            elif time.monotonic() - heard > ANSWER_TIMEOUT_S:
                raise TopicStalled(f"{self.topic} gave nothing for {ANSWER_TIMEOUT_S:.0f} s and did not end")


#: What a consumer says while a broker is away; it tries again by itself.
_PASSING = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE})


def record_at(bootstrap: str, topic: str, partition: int, offset: int, timeout_s: float) -> Message | None:
    """The record at an offset, or the next one; None if there is none within `timeout_s`."""
    consumer = Consumer(
        {
            **confluent_options(bootstrap),
            "group.id": "headrace-reader",
            "enable.auto.commit": False,
            "log_level": 0,  # what goes wrong is no record
        }
    )
    try:
        consumer.assign([TopicPartition(topic, partition, offset)])
        message = consumer.poll(timeout_s)
        return None if message is None or message.error() is not None else message
    finally:
        consumer.close()


def read_committed(bootstrap: str, topic: str) -> list[Message]:
    """Every committed record of the topic, each partition in order."""
    with CommittedLog(bootstrap, topic) as log:
        return sorted(log.advance(), key=lambda record: (record.partition() or 0, record.offset() or 0))


Table = dict[tuple[int, bytes], bytes]


def latest(records: Iterable[Message], table: Table | None = None) -> Table:
    """What a compacted topic means: the last value of each partition and key, without deleted keys; goes on in `table`."""
    values: dict[tuple[int, bytes], Any] = {} if table is None else table
    for record in records:
        key = (record.partition() or 0, record.key() or b"")
        if record.value() is None:
            values.pop(key, None)
        else:
            values[key] = record.value()
    return values
