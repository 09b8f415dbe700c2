"""Standing by: a thread that keeps copies of shards which other workers own.

Flows in: committed records of both changelogs of each shard that is followed. Flows out: stores on this machine's disk, from which a
take-over goes on instead of reading the changelogs from their beginning; to the loop, the rows of videos, and which users have
changed. Always holds: a store is open in the thread or in a take-over, never in both (`let_go` waits); the loop hears of a row after
the store has it.

Rows are handed over one batch at a time: the thread waits for the loop, so what a log has kept does not pile up in memory.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from agents.agreement import ANSWER_TIMEOUT_S, REPLAY, check_changelog, check_store
from agents.checkpoint import ShardTopics
from state import rows
from state.errors import CutOutOfRange, StateFull
from state.rows import Cut
from state.standby import Standby
from state.store import RocksStore, Row
from topics.identity import topic_ids
from topics.specs import INTERACTIONS, TopicsUnavailable

log = structlog.get_logger(__name__)

#: Rows handed to the loop at once: a few milliseconds of it.
BATCH = 500
#: Between two questions how far the shards' owners are behind the log; a state is known to be current no more exactly.
LOOK_S = 0.5
#: Between two tries to find the place of a copy in the log.
RETRY_S = 0.5
#: How often the thread sees that it is to stop, while it waits for the loop.
WAKE_S = 0.2
STOP_TIMEOUT_S = 5.0


class Listener(Protocol):
    """Who hears of what is tailed; called on the loop, and only of shards that are followed."""

    def opened(self, standby: Standby) -> None:
        """A shard's copy can be read."""

    def changed(self, standby: Standby, users: Sequence[bytes], items: Sequence[Row]) -> None:
        """Users (keys of rows of theirs) and videos have changed, in the order of their changelogs."""

    def failed(self, error: Exception) -> None:
        """The thread has ended: what is served would stand still."""


@dataclass
class _Held:
    """A shard whose stores the thread has open."""

    standby: Standby
    users: RocksStore
    items: RocksStore
    #: Arrival of the last cut, by the broker's clock.
    cut_ms: int = 0
    ended: set[str] = field(default_factory=set)


class _Stopped(Exception):
    """The thread is told to end while it waits for the loop."""


class Standbys:
    """One thread and one consumer for all shards that are followed.

    Parameters
    ----------
    bootstrap : broker addresses
    topics : of the version
    folder : of the stores, those that a take-over opens
    consumer : made and used by the thread alone; reads committed records and says where partitions end
    listener : told of what comes
    """

    def __init__(
        self, bootstrap: str, topics: ShardTopics, folder: Path, consumer: Callable[[], Consumer], listener: Listener
    ) -> None:
        self._bootstrap, self._topics, self._folder = bootstrap, topics, folder
        self._make, self._listener = consumer, listener
        self._lock = threading.Lock()
        self._wanted: frozenset[int] = frozenset()
        #: Shards whose stores the thread has open, or is about to open.
        self._holding: frozenset[int] = frozenset()
        self._held: dict[int, _Held] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def follow(self, partitions: Iterable[int]) -> None:
        """Follow exactly these from now on. Those that are taken over have been let go before."""
        with self._lock:
            self._wanted = frozenset(partitions)
        if self._wanted and self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._run, name="standbys", daemon=True)
            self._thread.start()

    async def let_go(self, partitions: Iterable[int]) -> None:
        """Follow these no more, and wait until their stores are closed."""
        leaving = frozenset(partitions)
        with self._lock:
            self._wanted -= leaving
        while self._thread is not None and self._thread.is_alive() and self._holding & leaving:  # noqa: ASYNC110 - seldom
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """End the thread; the stores are flushed and closed."""
        self._stop.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, STOP_TIMEOUT_S)

    def _run(self) -> None:
        try:
            self._follow()
        except _Stopped:
            pass
        except Exception as error:  # noqa: BLE001 - a thread's errors are seen by nobody
            if not self._stop.is_set() and self._loop is not None:
                self._loop.call_soon_threadsafe(self._listener.failed, error)
        finally:
            for partition in list(self._held):
                with suppress(Exception):
                    self._close(partition)
            self._holding = frozenset()

    def _follow(self) -> None:
        consumer = self._make()
        looked_at = 0.0
        try:
            while not self._stop.is_set():
                with self._lock:
                    wanted = self._wanted
                    self._holding = wanted.union(self._held)
                if wanted != self._held.keys():
                    self._change(consumer, wanted)
                if not wanted:
                    self._stop.wait(0.05)
                    continue
                self._take(consumer.consume(BATCH, timeout=0.05))
                if time.monotonic() - looked_at > LOOK_S:
                    self._look(consumer)
                    looked_at = time.monotonic()
        finally:
            consumer.close()

    def _change(self, consumer: Consumer, wanted: frozenset[int]) -> None:
        """Close what is not wanted any more, open what is new, and read both on from where they are."""
        # Before a store is closed, nothing may be on its way into it.
        consumer.unassign()
        for partition in self._held.keys() - wanted:
            self._close(partition)
        with self._lock:
            self._holding = frozenset(self._held) | wanted
        for partition in sorted(wanted - self._held.keys()):
            self._open_at_last(consumer, partition)
        consumer.assign(
            [
                TopicPartition(topic, partition, store.offset())
                for partition, held in self._held.items()
                for topic, store in self._stores(held)
            ]
        )
        log.info("standing by", shards=sorted(self._held))

    def _stores(self, held: _Held) -> list[tuple[str, RocksStore]]:
        return [(self._topics.users_changelog, held.users), (self._topics.items_changelog, held.items)]

    def _open_at_last(self, consumer: Consumer, partition: int) -> None:
        """Open a shard's stores; while the brokers give no answer, or not yet, ask again."""
        while partition in self._wanted:
            try:
                self._open(consumer, partition)
                return
            except (KafkaException, TopicsUnavailable) as error:
                self._close(partition)
                log.warning("a shard cannot be copied yet; trying again", shard=partition, error=str(error))
                if self._stop.wait(RETRY_S):
                    raise _Stopped from None

    def _open(self, consumer: Consumer, partition: int) -> None:
        users = RocksStore(self._folder / f"users-{partition}")
        try:
            items = RocksStore(self._folder / f"items-{partition}")
        except BaseException:
            users.close()
            raise
        data = users.get(rows.CUT_KEY)
        standby = Standby(partition, users, Cut({}) if data is None else rows.decode_cut(data))
        held = self._held[partition] = _Held(standby, users, items)
        ids = topic_ids(self._bootstrap, [topic for topic, _ in self._stores(held)])
        for topic, store in self._stores(held):
            check_store(store, topic, partition, ids)
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=ANSWER_TIMEOUT_S)
            check_changelog(f"{topic}[{partition}]", store.offset(), low, high)
        self._on_loop(partition, lambda: self._listener.opened(standby))
        for batch in _batches(items.scan(b"")):
            self._hand_over(standby, [], batch)

    def _close(self, partition: int) -> None:
        held = self._held.pop(partition)
        held.users.close()
        held.items.close()

    def _take(self, messages: Sequence[Message]) -> None:
        batches: dict[tuple[int, str], list[Row]] = {}
        reached: dict[tuple[int, str], int] = {}
        for message in messages:
            error, partition, topic = message.error(), message.partition(), message.topic()
            if error is not None and error.code() not in (KafkaError._PARTITION_EOF, KafkaError._AUTO_OFFSET_RESET):
                log.warning("standing by stumbles", error=str(error))  # the client goes on by itself
                continue
            if error is not None and error.code() == KafkaError._AUTO_OFFSET_RESET:
                raise CutOutOfRange(
                    f"{topic}[{partition}] does not hold any more what the copy of the shard lacks: it was wiped. {REPLAY}"
                )
            if partition is None or topic is None or partition not in self._held:
                continue
            if error is not None:
                self._held[partition].ended.add(topic)
                continue
            batches.setdefault((partition, topic), []).append((message.key() or b"", message.value()))
            reached[partition, topic] = (message.offset() or 0) + 1
            if message.key() == rows.CUT_KEY:
                self._held[partition].cut_ms = message.timestamp()[1]
        for (partition, topic), batch in batches.items():
            held = self._held[partition]
            dict(self._stores(held))[topic].write(batch, reached[partition, topic], logged=False)
            if topic == self._topics.items_changelog:
                self._hand_over(held.standby, [], batch)
            else:
                self._hand_over(held.standby, [key for key, _ in batch], [])
        for partition, held in self._held.items():
            if not held.standby.caught_up and len(held.ended) == len(self._stores(held)):
                self._on_loop(partition, lambda standby=held.standby: _mark(standby))  # type: ignore[misc]

    def _look(self, consumer: Consumer) -> None:
        """See how current each copy is: as of now, where all that is in the log is in it, else as of its last cut."""
        for held in self._held.values():
            standby, now_ms = held.standby, int(time.time() * 1000)
            try:
                _, high = consumer.get_watermark_offsets(
                    TopicPartition(INTERACTIONS, standby.partition), timeout=1.0, cached=False
                )
            except KafkaException:
                return  # a broker that is away: the age grows meanwhile, as it should
            current = standby.cut.next.get(INTERACTIONS, 0) >= high
            standby.as_of_ms = max(standby.as_of_ms, now_ms if current else held.cut_ms)

    def _hand_over(self, standby: Standby, users: Sequence[bytes], items: Sequence[Row]) -> None:
        cut = standby.users_store.get(rows.CUT_KEY) if rows.CUT_KEY in users else None

        def take() -> None:
            if cut is not None:
                standby.cut = rows.decode_cut(cut)
            try:
                self._listener.changed(standby, users, items)
            except StateFull as error:
                log.warning("no room for other workers' videos", error=str(error))

        self._on_loop(standby.partition, take)

    def _on_loop(self, partition: int, call: Callable[[], None]) -> None:
        """Have `call` called on the loop, if the shard is still followed then, and wait for it."""
        done: Future[None] = Future()

        def run() -> None:
            try:
                if partition in self._wanted:
                    call()
                done.set_result(None)
            except Exception as error:  # noqa: BLE001 - it is the thread's
                done.set_exception(error)

        if self._loop is None:
            raise RuntimeError("nothing is followed yet")
        self._loop.call_soon_threadsafe(run)
        while True:
            try:
                done.result(WAKE_S)
                return
            except NotYet:
                if self._stop.is_set():
                    raise _Stopped from None


def _mark(standby: Standby) -> None:
    standby.caught_up = True


def _batches(rows_: Iterator[tuple[bytes, bytes]]) -> Iterator[list[tuple[bytes, bytes | None]]]:
    while batch := list(islice(rows_, BATCH)):
        yield list(batch)
