"""Records into Kafka, each confirmed: what is read from a file or made up is in the log, or an error says how much is.

Interactions, videos and users flow in, `Produced` flows out when the broker has acknowledged every record. Order
within a key is kept, and a broker that goes away for less than the delivery timeout costs time only.
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from topics import catalog, interactions
from topics.catalog import User, Video
from topics.ids import require_id
from topics.interactions import Interaction
from topics.rejected import Rejected
from topics.specs import INTERACTIONS, USERS, VIDEOS, producer_config

DELIVERY_TIMEOUT_S: Final = 120.0  # a broker restart takes seconds; beyond this somebody should be told
_POLL_EVERY: Final = 1_000  # records between looks at confirmations: often enough for a smooth progress bar
_LEAVE_S: Final = 5.0  # what is under way when the loop is broken gets this long to arrive

Progress = Callable[[int], None]
"""Called now and then, and at the end, with the number of records confirmed so far."""


@dataclass(frozen=True)
class Produced:
    """What went into the log: records, the bytes of their values, and the seconds that it took."""

    records: int
    value_bytes: int
    seconds: float


class DeliveryFailed(RuntimeError):
    """Some records are not in the log, or may not be; the message says how many are."""

    def __init__(self, topic: str, sent: int, confirmed: int, why: str) -> None:
        super().__init__(
            f"{topic}: {confirmed} of {sent} records confirmed, then: {why}. "
            "Records keep their event ids: send them again once Kafka is well."
        )
        self.sent, self.confirmed = sent, confirmed


def produce_events(
    bootstrap: str,
    events: Iterable[Interaction],
    *,
    topic: str = INTERACTIONS,
    speed: float | None = None,
    progress: Progress | None = None,
    delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
) -> Produced:
    """Send events in the given order.

    Parameters
    ----------
    events : ordered by `at_ms`, if `speed` is given
    speed : multiple of real time at which to replay; None for as fast as the broker takes them

    Raises
    ------
    DeliveryFailed
        The broker did not confirm a record in time, or refused it.
    Rejected
        An event is one that consumers refuse; those before it are confirmed.
    """
    if speed is not None and not speed > 0:
        raise ValueError(f"speed must be above 0, got {speed}")
    sender = _Sender(bootstrap, topic, progress, delivery_timeout_s)
    first_ms: int | None = None
    with sender:
        for event in events:
            if speed is not None:
                first_ms = event.at_ms if first_ms is None else first_ms
                sender.wait_until((event.at_ms - first_ms) / 1000 / speed)
            sender.send(event.user_id.encode(), interactions.encode(event))
    return sender.produced()


def produce_videos(
    bootstrap: str,
    videos: Iterable[tuple[str, Video | None]],
    *,
    topic: str = VIDEOS,
    progress: Progress | None = None,
    delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
) -> Produced:
    """Send videos by id, None to remove one; errors as `produce_events`."""
    return _produce_entries(bootstrap, videos, topic, progress, delivery_timeout_s)


def produce_users(
    bootstrap: str,
    users: Iterable[tuple[str, User | None]],
    *,
    topic: str = USERS,
    progress: Progress | None = None,
    delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
) -> Produced:
    """Send users by id, None to remove one; errors as `produce_events`."""
    return _produce_entries(bootstrap, users, topic, progress, delivery_timeout_s)


def _produce_entries(
    bootstrap: str,
    entries: Iterable[tuple[str, Video | User | None]],
    topic: str,
    progress: Progress | None,
    delivery_timeout_s: float,
) -> Produced:
    sender = _Sender(bootstrap, topic, progress, delivery_timeout_s)
    with sender:
        for entry_id, entry in entries:
            try:
                require_id("id", entry_id)
                value = None if entry is None else catalog.encode(entry)
            except Rejected as error:
                raise Rejected(error.reason, f"{topic} {entry_id[:40]!r}: {error.detail}") from None
            sender.send(entry_id.encode(), value)
    return sender.produced()


class _Sender:
    """One producer and one topic for the length of a `with` block, at whose end every record is confirmed."""

    def __init__(self, bootstrap: str, topic: str, progress: Progress | None, delivery_timeout_s: float) -> None:
        self._topic = topic
        self._progress = progress or (lambda _: None)
        self._timeout_s = delivery_timeout_s
        self._sent = self._confirmed = self._value_bytes = 0
        self._error: KafkaError | None = None
        self._started = time.monotonic()
        self._seconds = 0.0
        config = producer_config(bootstrap) | {"message.timeout.ms": int(delivery_timeout_s * 1000)}
        self._producer = Producer(config, logger=logging.getLogger(__name__))

    def __enter__(self) -> "_Sender":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is DeliveryFailed:
            self._producer.purge()
            return
        # broken off (Ctrl-C, a bad row): what was sent is confirmed if that is quick, and the error goes on
        self._producer.flush(self._timeout_s + 1 if kind is None else _LEAVE_S)
        self._progress(self._confirmed)
        self._seconds = time.monotonic() - self._started
        if kind is None:
            self._raise_error()
            if self._confirmed != self._sent:
                self._fail(f"no confirmation within {self._timeout_s:.0f} s")

    def send(self, key: bytes, value: bytes | None) -> None:
        """Queue one record, waiting while the queue is full."""
        while True:
            try:
                self._producer.produce(self._topic, value, key, on_delivery=self._on_delivery)
                break
            except BufferError:
                self._producer.poll(0.1)
                self._raise_error()
            except KafkaException as error:
                self._fail(error.args[0].str())
        self._sent += 1
        self._value_bytes += len(value or b"")
        if self._sent % _POLL_EVERY == 0:
            self._look(0)

    def wait_until(self, seconds: float) -> None:
        """Wait until that many seconds after the start, seeing to confirmations meanwhile."""
        while (left_s := self._started + seconds - time.monotonic()) > 0:
            self._look(min(left_s, 0.1))

    def produced(self) -> Produced:
        """Say what was sent and confirmed."""
        return Produced(self._confirmed, self._value_bytes, self._seconds)

    def _look(self, timeout_s: float) -> None:
        self._producer.poll(timeout_s)
        self._raise_error()
        self._progress(self._confirmed)

    def _on_delivery(self, error: KafkaError | None, _: Message) -> None:
        if error is None:
            self._confirmed += 1
        elif self._error is None:
            self._error = error

    def _raise_error(self) -> None:
        if self._error is not None:
            self._fail(self._error.str())

    def _fail(self, why: str) -> None:
        raise DeliveryFailed(self._topic, self._sent, self._confirmed, why)
