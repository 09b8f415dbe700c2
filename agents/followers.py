"""Following the videos that other workers own: a thread tails their changelogs and hands rows to the loop.

Flows in: committed rows of the items changelog of every partition that is not ours. Flows out: rows in the replica. Always
holds: rows of a partition are applied in changelog order, on the loop, and never while the partition is ours.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from state.errors import StateFull

log = structlog.get_logger(__name__)

#: Rows handed to the loop at once: a few milliseconds of it.
BATCH = 500
Rows = Sequence[tuple[bytes, bytes | None]]


class Followers:
    """One thread and one consumer for all foreign partitions of a topic.

    Parameters
    ----------
    consumer : made here and used by the thread alone; reads committed records
    take : called on the loop with (partition, rows)
    fail : called on the loop with an error that ended the thread or that `take` raised: what is served would stand still
    """

    def __init__(
        self,
        consumer: Callable[[], Consumer],
        topic: str,
        take: Callable[[int, Rows], None],
        fail: Callable[[Exception], object],
    ) -> None:
        self._make = consumer
        self._topic = topic
        self._take = take
        self._fail = fail
        self._wanted: frozenset[int] = frozenset()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def follow(self, partitions: set[int]) -> None:
        """Follow exactly these from now on; one that is new here is read from its beginning."""
        self._wanted = frozenset(partitions)
        if partitions and self._thread is None:
            loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._run, args=(loop,), name="followers", daemon=True)
            self._thread.start()

    async def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 5.0)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._follow(loop)
        except Exception as error:  # noqa: BLE001 - a thread's errors are seen by nobody
            if not self._stop.is_set():
                loop.call_soon_threadsafe(self._fail, error)

    def _follow(self, loop: asyncio.AbstractEventLoop) -> None:
        consumer = self._make()
        places: dict[int, int] = {}
        assigned: frozenset[int] = frozenset()
        try:
            while not self._stop.is_set():
                wanted = self._wanted
                if wanted != assigned:
                    places = {partition: places.get(partition, OFFSET_BEGINNING) for partition in wanted}
                    consumer.assign([TopicPartition(self._topic, partition, at) for partition, at in places.items()])
                    assigned = wanted
                    log.info("following other workers' videos", partitions=sorted(wanted))
                if not assigned:
                    self._stop.wait(0.1)
                    continue
                batches: dict[int, list[tuple[bytes, bytes | None]]] = {}
                for message in consumer.consume(BATCH, timeout=0.05):
                    error = message.error()
                    partition = message.partition()
                    if error is None and partition is not None:
                        batches.setdefault(partition, []).append((message.key() or b"", message.value()))
                        places[partition] = (message.offset() or 0) + 1
                    elif error is not None and error.code() != KafkaError._PARTITION_EOF:
                        log.warning("following stumbles", error=str(error))
                for partition, rows in batches.items():
                    loop.call_soon_threadsafe(self._hand_over, partition, rows)
        finally:
            consumer.close()

    def _hand_over(self, partition: int, rows: Rows) -> None:
        if partition not in self._wanted:
            return
        try:
            self._take(partition, rows)
        except StateFull as error:
            log.warning("no room for other workers' videos", error=str(error))
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)
