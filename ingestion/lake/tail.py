"""From the topics into the lake: a reader whose place in the log is what the lake already has.

Flows in: committed records of `interactions`, `recommendations` and `interactions.dead`. Flows out: ranges, to a `Writer`. Always
holds: no offset is kept anywhere but in the names of the lake's files, so no crash can set the two apart. What the log has lost before
it was read is said, recorded, and passed over.
"""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Self

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from infra.kafka_reader import committed_reader
from ingestion.lake.buffers import DEFAULT_BOUNDS, Bounds, Range, largest
from ingestion.lake.errors import LakeError
from ingestion.lake.files import TOPICS
from ingestion.lake.store import Lake, Place
from ingestion.lake.tables import Judge, Taken
from ingestion.lake.writer import Writer
from topics.cluster import topic_states
from topics.groups import bounds_of
from topics.identity import topic_ids
from topics.specs import TopicMismatch, TopicsUnavailable

log = structlog.get_logger(__name__)

ANSWER_TIMEOUT_S = 30.0
#: Topics and partitions that are new are looked for so often.
LOOK_S = 30.0
FETCH = 5_000
_PAUSE_S = 0.1
#: What a consumer says while a broker is away; it tries again by itself.
_PASSING = frozenset(
    {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE, KafkaError._MAX_POLL_EXCEEDED}
)
#: Told how many records have come, of how many there were at the start.
Progress = Callable[[int, int], None]


class Tail:
    """Reads the topics into a lake.

    Parameters
    ----------
    bootstrap : broker addresses
    lake : where to
    judge : what is refused
    bounds : when ranges end
    topics : those of them that exist are read

    Raises
    ------
    LakeError
        The lake is ahead of the topics, or of other topics of these names.
    TopicMismatch
        A topic has its producers' times.
    TopicsUnavailable
    """

    def __init__(
        self, bootstrap: str, lake: Lake, judge: Judge, bounds: Bounds = DEFAULT_BOUNDS, topics: Iterable[str] = TOPICS
    ) -> None:
        self._bootstrap, self._lake, self._bounds = bootstrap, lake, bounds
        self._topics = tuple(topics)
        self._ranges: dict[Place, Range] = {}
        #: Partitions whose present end has been reached.
        self._ended: set[Place] = set()
        self._ids: dict[str, str] = {}
        self.writer = Writer(lake, judge, self._ids)
        #: Records that were read, and that there were to read at the start, offsets without one included.
        self.read = self.waiting = 0
        files = lake.tidy()
        self._starts = lake.ends(files)
        self._known_ids = self.writer.known_ids()
        self._consumer = committed_reader(
            bootstrap,
            "headrace-lake",
            {
                "fetch.wait.max.ms": 50,
                "queued.max.messages.kbytes": 32 * 1024,
            },
        )
        try:
            self._look()
        except KafkaException as error:
            self._consumer.close()
            raise TopicsUnavailable(f"Kafka at {bootstrap}: {error.args[0].str()}") from error
        except BaseException:
            self._consumer.close()
            raise

    def run(self, *, once: bool, ended: threading.Event, progress: Progress = lambda _read, _of: None) -> None:
        """Read until `ended`, or `once` up to the present ends; what waits then becomes files.

        Raises
        ------
        LakeTaken
            Another process writes to the lake.
        TopicsUnavailable
        """
        looked = heard = time.monotonic()
        try:
            while not ended.is_set() and not (once and self._ended >= self._ranges.keys()):
                messages = self._consumer.consume(FETCH, timeout=_PAUSE_S)
                now = time.monotonic()
                if messages:
                    heard = now
                elif once and now - heard > ANSWER_TIMEOUT_S:
                    raise TopicsUnavailable(f"Kafka at {self._bootstrap} gave nothing for {ANSWER_TIMEOUT_S:.0f} s")
                for message in messages:
                    self._take(message)
                self._end_those_due()
                progress(self.read, self.waiting)
                if not once and now - looked > LOOK_S:
                    looked = now
                    self._look()
            for place, waiting in self._ranges.items():
                if waiting.may_end:
                    self._end(place)
        except KafkaException as error:
            raise TopicsUnavailable(f"Kafka at {self._bootstrap}: {error.args[0].str()}") from error

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _look(self) -> None:
        """Begin to read what is not read yet of the topics that exist."""
        found = self._consumer.list_topics(timeout=ANSWER_TIMEOUT_S).topics
        new = [
            (topic, partition)
            for topic in self._topics
            if topic in found
            for partition in sorted(found[topic].partitions)
            if (topic, partition) not in self._ranges
        ]
        if not new:
            return
        names = sorted({topic for topic, _ in new})
        self._require(names)
        for place in new:
            low, high = bounds_of(self._consumer, TopicPartition(*place), ANSWER_TIMEOUT_S)
            start = self._starts.get(place)
            if start is not None and start > high:
                raise LakeError(
                    f"{self._lake.url} has {place[0]}[{place[1]}] up to offset {start - 1}, the log ends at {high}: the topic was made"
                    " anew, or has lost records. Name a new lake in HEADRACE_LAKE"
                )
            self._begin(place, self._past_gap(place, low) if start is None else self._past_gap(place, low, start))
            self.waiting += max(0, high - self._ranges[place].first)
        self._consumer.incremental_assign([TopicPartition(*place, self._ranges[place].first) for place in new])

    def _require(self, names: list[str]) -> None:
        """Refuse topics by which the lake cannot go on."""
        for name, state in topic_states(self._bootstrap, names, ANSWER_TIMEOUT_S).items():
            stamped = state.config.get("message.timestamp.type", "LogAppendTime")
            if stamped != "LogAppendTime":  # hours would be the producers', in any order
                raise TopicMismatch(name, "message.timestamp.type", "LogAppendTime", stamped)
        self._ids.update(topic_ids(self._bootstrap, names))
        for name in names:
            known, found = self._known_ids.get(name), self._ids.get(name)
            if known and found and known != found:
                raise LakeError(
                    f"{self._lake.url} was filled from another topic {name} than the one that is there now: name a new lake in"
                    " HEADRACE_LAKE"
                )

    def _past_gap(self, place: Place, low: int, start: int | None = None) -> int:
        """Where to begin: where the lake ends, or where the log begins, if what lies between is lost."""
        if start is None or start >= low:
            return low if start is None else start
        self._lake.record_gap(place, start, low - 1)
        log.warning(
            "the log has lost records before they were read: raise the topic's retention, or keep the lake running",
            topic=place[0],
            partition=place[1],
            first=start,
            last=low - 1,
        )
        return low

    def _begin(self, place: Place, first: int) -> None:
        self._ranges[place] = Range(first, self.writer.begun(place, first))

    def _take(self, message: Message) -> None:
        place = (message.topic() or "", message.partition() or 0)
        error = message.error()
        if error is not None:
            self._hear(place, error)
            return
        record = Taken(message.key(), message.value(), message.offset() or 0, message.timestamp()[1], _headers(message))
        waiting = self._ranges[place]
        if record.offset < waiting.first:
            return
        self.read += 1
        if waiting.ends_before(record):
            self._end(place)
            waiting = self._ranges[place]
        waiting.add(record)
        if waiting.is_over(self._bounds):
            self._end(place)

    def _hear(self, place: Place, error: KafkaError) -> None:
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            self._ended.add(place)
        elif code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            self._go_on_behind_a_gap(place)
        elif not error.retriable() and code not in _PASSING:
            raise TopicsUnavailable(f"Kafka at {self._bootstrap}: {place[0]}[{place[1]}]: {error.str()}")

    def _go_on_behind_a_gap(self, place: Place) -> None:
        """Retention was faster than we are."""
        waiting = self._ranges[place]
        if waiting.may_end:
            self._end(place)
            waiting = self._ranges[place]
        low, high = bounds_of(self._consumer, TopicPartition(*place), ANSWER_TIMEOUT_S)
        next_ = waiting.records[-1].offset + 1 if waiting.records else waiting.first
        if low <= next_ <= high:
            raise TopicsUnavailable(
                f"Kafka at {self._bootstrap}: {place[0]}[{place[1]}] gives nothing at {next_}, which is in it: try again"
            )
        if next_ > high:
            raise LakeError(
                f"{place[0]}[{place[1]}] ends at {high}, and was read up to {next_ - 1}: it was made anew, or has lost records. Name a"
                " new lake in HEADRACE_LAKE"
            )
        first = self._past_gap(place, low, waiting.first)
        self._begin(place, first)
        self._consumer.seek(TopicPartition(*place, first))

    def _end_those_due(self) -> None:
        for place in [place for place, waiting in self._ranges.items() if waiting.is_over(self._bounds)]:
            self._end(place)
        while sum(waiting.size_bytes for waiting in self._ranges.values()) > self._bounds.bytes_:
            place_ = largest(self._ranges)
            if place_ is None:
                return
            self._end(place_)

    def _end(self, place: Place) -> None:
        """Let what waits of a partition become a file."""
        waiting = self._ranges[place]
        file = self.writer.write(place, waiting.first, waiting.records)
        self._begin(place, file.last + 1)


def _headers(message: Message) -> Any:
    headers: Any  # bytes, whatever the client's types say
    try:
        headers = message.headers()
    except UnicodeDecodeError:  # a name that is no text
        return None
    return None if not headers else tuple((name, None if value is None else bytes(value)) for name, value in headers)
