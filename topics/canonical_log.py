"""Reading a log in the canonical order: one process, no group, committed records only, up to a fixed place.

Flows in: partitions of `interactions`, `videos`, `users` and, where there is one, of `recommendations`, as they are when the reading
begins. Flows out: windows (`topics.canonical_order`), and served lists by partition. Always holds: what lies behind the stopping point
is as if it were not there, and what a fetch brings changes nothing. Bound: MOST records a partition are held beyond a window.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from infra.kafka_reader import committed_reader
from topics.canonical_order import CanonicalOrder, Stream, event_stream
from topics.erasures import Erasures, read_erasures
from topics.record_batch import RecordBatch
from topics.specs import INTERACTIONS, RECOMMENDATIONS, USERS, VIDEOS, TopicMismatch, TopicsUnavailable

#: Records of a partition that wait while those of another are fetched; then it is paused.
MOST = 20_000
#: Records asked for at once.
FETCH = 5_000
ANSWER_TIMEOUT_S = 30.0

#: Topic, and next offset by partition.
Places = Mapping[str, Mapping[int, int]]


@dataclass(frozen=True)
class StoppingPoint:
    """Where a replay stops; by default at the end of what there is when it begins.

    Attributes
    ----------
    arrived_ms : each partition ends before its first record that arrived later
    places : next offset of each partition; of a topic that is named, partitions that are not stand at 0
    """

    arrived_ms: int | None = None
    places: Places | None = None


class CanonicalLog:
    """The inputs of a replay.

    Parameters
    ----------
    bootstrap : broker addresses
    partitions : of every topic
    future_tolerance_ms : as the workers have it: a record that is refused has no time
    fetch : records asked for at once; changes nothing but speed
    forgetting : pass over what users did who have been erased since, up to the stopping point
    """

    def __init__(
        self,
        bootstrap: str,
        partitions: int,
        future_tolerance_ms: int,
        until: StoppingPoint = StoppingPoint(),
        fetch: int = FETCH,
        *,
        forgetting: bool = False,
    ) -> None:
        self._bootstrap, self._fetch_size = bootstrap, fetch
        self._until = until
        self._erasures = Erasures() if forgetting else None
        self._consumer = committed_reader(
            bootstrap,
            "headrace-replay",
            {
                "fetch.wait.max.ms": 50,
                # A full queue postpones the next fetch, by default for a whole second.
                "fetch.queue.backoff.ms": 5,
                "queued.max.messages.kbytes": 32 * 1024,
            },
        )
        self._streams: dict[tuple[str, int], Stream] = {}
        self._ends: dict[tuple[str, int], int] = {}
        self._paused: set[tuple[str, int]] = set()
        self._heard = time.monotonic()
        #: Records to read, offsets without one included.
        self.records = 0
        #: Where the reading begins and stops: first and next offsets.
        self.begins: dict[str, dict[int, int]] = {topic: {} for topic in (INTERACTIONS, VIDEOS, USERS, RECOMMENDATIONS)}
        self.ends: dict[str, dict[int, int]] = {topic: {} for topic in self.begins}
        try:
            self._open(partitions, future_tolerance_ms)
        except KafkaException as error:
            self._consumer.close()
            raise TopicsUnavailable(f"Kafka at {bootstrap}: {error.args[0].str()}") from error
        except BaseException:
            self._consumer.close()
            raise
        self._order = CanonicalOrder(
            [stream for (topic, _), stream in self._streams.items() if topic == INTERACTIONS],
            [stream for (topic, _), stream in self._streams.items() if topic in (VIDEOS, USERS)],
            self._fetch,
        )

    def _open(self, partitions: int, future_tolerance_ms: int) -> None:
        found = self._consumer.list_topics(timeout=ANSWER_TIMEOUT_S).topics
        assigned = []
        users: dict[int, tuple[int, int]] = {}
        for topic in self.begins:
            if topic not in found:
                if topic == INTERACTIONS:
                    raise TopicsUnavailable(
                        f"Kafka at {self._bootstrap} has no topic {topic}: there is nothing to replay"
                    )
                continue
            if len(found[topic].partitions) != partitions:
                raise TopicMismatch(topic, "partitions", str(partitions), str(len(found[topic].partitions)))
            for partition in range(partitions):
                stream = (
                    event_stream(partition, partitions, future_tolerance_ms, self._erasures)
                    if topic == INTERACTIONS
                    else Stream(topic, partition, erasures=self._erasures if topic == RECOMMENDATIONS else None)
                )
                self._streams[topic, partition] = stream
                low, high = self._consumer.get_watermark_offsets(
                    TopicPartition(topic, partition), timeout=ANSWER_TIMEOUT_S
                )
                if self._until.places is not None and topic in self._until.places:
                    high = min(high, self._until.places[topic].get(partition, 0))
                self._ends[topic, partition] = high
                self.begins[topic][partition], self.ends[topic][partition] = low, high
                if topic == USERS:
                    users[partition] = low, high
                stream.ended = high <= low
                if not stream.ended:
                    self.records += high - low if topic == INTERACTIONS else 0
                    assigned.append(TopicPartition(topic, partition, low))
        self._assigned = {(each.topic, each.partition) for each in assigned}
        if self._erasures is not None:
            read_erasures(self._bootstrap, users, self._erasures, self._until.arrived_ms)
        self._consumer.assign(assigned)

    def windows(self, size: int) -> Iterator[list[tuple[Stream, RecordBatch]]]:
        """Windows of so many records of the canonical order. Raises TopicsUnavailable."""
        return self._order.windows(size)

    def lists(self, partition: int, until_ms: int | None, most: int) -> RecordBatch:
        """The next served lists of the partition, at most so many, that arrived by then; None: all that are left."""
        stream = self._streams.get((RECOMMENDATIONS, partition))
        if stream is None:
            return RecordBatch.of(())
        while not (stream.has(most) or (until_ms is not None and stream.has_until(until_ms))):
            self._fetch()
        return stream.take_until(until_ms, most)

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()

    def __enter__(self) -> "CanonicalLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fetch(self) -> None:
        """Give the streams what one call brings."""
        # A call for many waits for the last of them, or for its time to be over.
        messages = self._consumer.consume(self._fetch_size, timeout=0.02)
        if messages:
            self._heard = time.monotonic()
        elif time.monotonic() - self._heard > ANSWER_TIMEOUT_S:
            raise TopicsUnavailable(f"Kafka at {self._bootstrap} gave nothing for {ANSWER_TIMEOUT_S:.0f} s")
        for where, group in groupby(messages, lambda message: (message.topic() or "", message.partition() or 0)):
            self._take(where, list(group))
        self._pause()

    def _take(self, where: tuple[str, int], messages: Sequence[Message]) -> None:
        """Give a stream what was fetched of its partition, as far as it goes."""
        stream, end = self._streams[where], self._ends[where]
        if stream.ended:
            return
        ended = False
        for message in messages:
            error = message.error()
            if error is None:
                continue
            if error.code() == KafkaError._PARTITION_EOF:
                ended = True
            elif not error.retriable() and error.code() not in _PASSING:
                raise TopicsUnavailable(f"Kafka at {self._bootstrap}: {where[0]}[{where[1]}]: {error.str()}")
        records = [message for message in messages if message.error() is None]
        batch = RecordBatch.of_columns(
            [record.key() for record in records],
            [record.value() for record in records],
            [record.offset() or 0 for record in records],
            [record.timestamp()[1] for record in records],
        )
        if len(batch):
            ended |= int(batch.offsets[-1]) >= end - 1
            batch = batch.before(end)
        if self._until.arrived_ms is not None:
            late = np.flatnonzero(batch.timestamps > self._until.arrived_ms)
            if len(late):
                ended, batch = True, batch[: int(late[0])]
        stream.add(batch)
        stream.ended = ended

    def _pause(self) -> None:
        """Let those wait of which much is at hand, and those that have ended for good."""
        full = {where for where, stream in self._streams.items() if stream.ended or len(stream) > MOST}
        if more := full - self._paused:
            self._consumer.pause([TopicPartition(*where) for where in more & self._assigned])
        going = {where for where in self._paused - full if len(self._streams[where]) <= MOST // 2}
        if going:
            self._consumer.resume([TopicPartition(*where) for where in going])
        self._paused = (self._paused | full) - going


#: What a consumer says while a broker is away; it tries again by itself.
_PASSING = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE})
