"""The load of a chaos run: threads that send simulated events as real producers do, with retries, repeats and nonsense.

Only a seed flows in; records flow into `interactions`, and what the broker has acknowledged is kept by offset, so that the log
can be held against it. Videos come in generations, and a fifth of the users stays: links then remain few
enough a video to be kept whole, and users go cold and are evicted.
"""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import msgspec
from confluent_kafka import KafkaError, Message, Producer

from ingestion.produce import produce_videos
from ingestion.simulate import START_MS, Audience
from topics.interactions import EVENTS, Interaction, encode
from topics.partitions import partition_of
from topics.specs import INTERACTIONS

THREADS: Final = 3
CODECS: Final = ("gzip", "snappy", "lz4", "zstd", "none")
#: Events a thread sends through one producer; the next one has another codec.
SEGMENT: Final = 2_000
DAY_MS: Final = 86_400_000
#: Shares of the events: sent once more with their id, followed by an event of any kind, late, followed by nonsense.
AGAIN, ODD, LATE, NONSENSE = 0.03, 0.03, 0.05, 0.01
#: A repeat comes within so many events of its thread: a user's last 32 event ids are remembered.
AGAIN_WITHIN: Final = 10
LATEST_MS: Final = 2 * 3_600_000
BAD: Final = (
    *(b"{", b"\xff\xfe", b"[1]", b'{"v":9}', b"", b"null"),
    b'{"event_id":"a","user_id":"u","video_id":"v","event":"sing","at_ms":1}',
    b'{"event_id":"a","user_id":"u","video_id":"v","event":"like","at_ms":99999999999999}',
    b'{"event_id":"a","user_id":"u","video_id":"v","event":"watch","at_ms":1,"watch_seconds":-1}',
)
_FLUSH_S: Final = 120.0


class Shape(NamedTuple):
    """How much comes, and from how many.

    Attributes
    ----------
    events_per_s : of all threads together; by default what a worker that has just started can catch up with on half a core
    generation : events of a thread before other users and videos come
    users, staying : of a thread and generation, and those of them who stay
    videos : of a generation, the same for all threads
    """

    events_per_s: float = 1_000.0
    generation: int = 6_000
    users: int = 100
    staying: int = 20
    videos: int = 60


CHAOS: Final = Shape()


def record_hash(key: bytes | None, value: bytes | None) -> int:
    """What stands for a record within this process."""
    return hash((key or b"", value or b""))


Record = tuple[bytes | None, bytes, int]


class Load:
    """The producers of a run; `start` and `stop` once each.

    Parameters
    ----------
    bootstrap : of a broker, which may go away and come back
    partitions : of `interactions`
    seed : of all that is drawn
    shape : how much it is
    """

    def __init__(self, bootstrap: str, partitions: int, seed: int, shape: Shape = CHAOS) -> None:
        self._bootstrap, self._partitions, self._seed, self._shape = bootstrap, partitions, seed, shape
        #: What the broker acknowledged: by partition and offset, the hash of key and value.
        self.acknowledged: list[dict[int, int]] = [{} for _ in range(partitions)]
        self.sent = 0
        self.refused = 0
        self.failure: BaseException | None = None
        #: Ids of the videos put into the catalogue.
        self.published: set[str] = set()
        self._publishing, self._counting = threading.Lock(), threading.Lock()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(thread,), name=f"load-{thread}", daemon=True)
            for thread in range(THREADS)
        ]

    def start(self) -> None:
        """Begin to send."""
        for thread in self._threads:
            thread.start()

    def stop(self, look: Callable[[str], None]) -> None:
        """End the stream, and wait until all that was sent is acknowledged or given up; `look` is called meanwhile."""
        self._stop.set()
        for thread in self._threads:
            while thread.is_alive():
                look("the producers wait for acknowledgements")
                thread.join(0.1)

    def abandon(self) -> None:
        """End the stream without waiting; the threads end with the process."""
        self._stop.set()

    @property
    def acknowledged_records(self) -> int:
        """Records that the broker has acknowledged so far."""
        return sum(map(len, self.acknowledged))

    def _run(self, thread: int) -> None:
        try:
            self._send_all(thread)
        except BaseException as error:  # noqa: BLE001 - handed to the main thread, which looks for it
            self.failure = error

    def _send_all(self, thread: int) -> None:
        draw = random.Random(f"{self._seed} load {thread}")
        due = time.monotonic()
        producer: Producer | None = None
        for number, record in enumerate(self._records(thread, draw)):
            if producer is None or number % SEGMENT == 0:
                if producer is not None:
                    producer.flush(_FLUSH_S)
                producer = self._producer(draw.choice(CODECS))
            self._send(producer, record)
            due = max(due + THREADS / self._shape.events_per_s, time.monotonic() - 1.0)
            while (left_s := due - time.monotonic()) > 0 and not self._stop.is_set():
                producer.poll(min(left_s, 0.1))
            if self._stop.is_set():
                break
        if producer is not None:
            producer.flush(_FLUSH_S)

    def _producer(self, codec: str) -> Producer:
        """Retries without idempotence: after an answer that was lost, batches are in the log twice and out of order."""
        return Producer(
            {
                "bootstrap.servers": self._bootstrap,
                "acks": "all",
                "enable.idempotence": False,
                "max.in.flight.requests.per.connection": 3,
                "compression.type": codec,
                "linger.ms": 5,
                # Repeats by retries stay near: a few of a user's events fit into the batches under way.
                "batch.num.messages": 100,
                "queue.buffering.max.messages": 20_000,
                "request.timeout.ms": 2_000,
                # By default a question that a restarted broker never answers is waited for a minute.
                "socket.timeout.ms": 5_000,
                "socket.connection.setup.timeout.ms": 5_000,
                "reconnect.backoff.max.ms": 1_000,
            },
            logger=_quiet_log(),
        )

    def _send(self, producer: Producer, record: Record) -> None:
        key, value, partition = record

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                self.acknowledged[partition][message.offset() or 0] = record_hash(key, value)
            else:
                self.refused += 1

        while not self._stop.is_set():
            try:
                producer.produce(INTERACTIONS, value, key, partition, on_delivery=delivered)
                with self._counting:
                    self.sent += 1
                return
            except BufferError:
                producer.poll(0.1)

    def _records(self, thread: int, draw: random.Random) -> Iterator[Record]:
        """Events of a thread without end, some repeated soon after, and what is no event."""
        waiting: deque[tuple[int, Record]] = deque()
        for number, event in enumerate(self._events(thread, draw)):
            key = event.user_id.encode()
            record = key, encode(event), partition_of(key, self._partitions)
            yield record
            if draw.random() < AGAIN:
                waiting.append((number + draw.randrange(AGAIN_WITHIN), record))
            while waiting and waiting[0][0] <= number:
                yield waiting.popleft()[1]
            if draw.random() < NONSENSE:
                # Some are sound but lie where they do not belong.
                value = draw.choice([*BAD, record[1]])
                yield draw.choice([None, b"", b"somebody", key]), value, draw.randrange(self._partitions)

    def _events(self, thread: int, draw: random.Random) -> Iterator[Interaction]:
        generation = 0
        while True:
            audience = Audience(
                draw.randrange(2**31), self._shape.users, self._shape.videos, start_ms=START_MS + generation * DAY_MS
            )
            self._publish(generation, audience)
            for number, event in enumerate(audience.events(self._shape.generation)):
                name = f"{generation}-{thread}-{number}"
                renamed = msgspec.structs.replace(
                    event,
                    event_id=name,
                    user_id=user_name(event.user_id, thread, generation, self._shape),
                    video_id=f"{generation}-{event.video_id}",
                    at_ms=event.at_ms - (draw.randrange(LATEST_MS) if draw.random() < LATE else 0),
                )
                yield renamed
                if draw.random() < ODD:
                    yield msgspec.structs.replace(
                        renamed,
                        event_id=f"{name}-odd",
                        event=draw.choice(EVENTS),
                        watch_seconds=draw.choice([None, 1.0, 30.0]),
                    )
            generation += 1

    def _publish(self, generation: int, audience: Audience) -> None:
        """Whoever is first in a generation puts its videos into the catalogue."""
        with self._publishing:
            videos = [(f"{generation}-{video_id}", video) for video_id, video in audience.videos()]
            if videos[0][0] not in self.published:
                self.published |= {video_id for video_id, _ in videos}
                produce_videos(self._bootstrap, videos)


def user_name(user_id: str, thread: int, generation: int, shape: Shape) -> str:
    """The name of a user of a thread's audience."""
    stays = int(user_id.rpartition("-")[2]) < shape.staying
    return f"{'all' if stays else generation}.{thread}-{user_id}"


def _quiet_log() -> logging.Logger:
    # A broker that is killed on purpose is no news.
    logger = logging.getLogger("headrace.chaos.producer")
    logger.setLevel(logging.CRITICAL)
    return logger
