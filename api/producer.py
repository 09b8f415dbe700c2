"""What the API writes to Kafka: events, videos and users, acknowledged before the client is told so."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from api.errors import unavailable
from infra import metrics
from infra.kafka_security import aiokafka_options
from topics.partitions import partition_of

#: A client waits this long for the broker's acknowledgement, then is told to come again.
ACK_TIMEOUT_S = 5.0
#: Batches wait this long for company: single posts share a request to the broker.
LINGER_MS = 2
#: Bytes of a batch; at aiokafka's 16 KiB a few lists would fill one, and only one of a partition is under way at a time.
BATCH_BYTES = 256 * 1024
#: A record that nobody waits for waits this long for company: each batch costs this worker a request to the broker, and the fetch
#: that brings it back, which together are half of the work for a list that is logged alone.
BEHIND_S = 0.02
#: Records under way that nobody waits for; more are lost, rather than kept in memory while the broker is away.
MAX_BEHIND = 2_000


class LogWriter:
    """An idempotent producer, started on first use.

    Parameters
    ----------
    bootstrap : broker addresses
    partitions : of every topic
    """

    def __init__(self, bootstrap: str, partitions: int) -> None:
        self._bootstrap = bootstrap
        self._partitions = partitions
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        #: Records that nobody waits for, by topic and partition; those that wait and those under way; the task that writes them.
        self._waiting: dict[tuple[str, int], list[tuple[bytes, bytes]]] = {}
        self._behind = 0
        self._flushing: asyncio.Task[None] | None = None
        self._stopping = False

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    **aiokafka_options(self._bootstrap),
                    enable_idempotence=True,
                    linger_ms=LINGER_MS,
                    max_batch_size=BATCH_BYTES,
                    request_timeout_ms=int(ACK_TIMEOUT_S * 1000),
                )
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer

    async def write(self, topic: str, records: Sequence[tuple[str, bytes | None]]) -> list[tuple[int, int]]:
        """Append records given as (key, value); returns the (partition, offset) of each once all are acknowledged.

        Raises
        ------
        Problem
            503: the broker did not acknowledge in time. Some records may be in the log: their event ids make a retry safe.
        """
        try:
            async with asyncio.timeout(ACK_TIMEOUT_S):
                producer = await self._started()
                futures = []
                for key, value in records:
                    raw = key.encode()
                    futures.append(
                        await producer.send(topic, value, key=raw, partition=partition_of(raw, self._partitions))
                    )
                answers = await asyncio.gather(*futures)
        except (KafkaError, TimeoutError) as error:
            raise unavailable(f"the log did not acknowledge: {type(error).__name__}") from error
        return [(answer.partition, answer.offset) for answer in answers]

    def write_behind(self, topic: str, key: str, value: bytes) -> None:
        """Append a record that may be lost, without waiting: what finds no room or no broker is counted."""
        if self._behind >= MAX_BEHIND:
            metrics.LISTS_LOST.inc()
            return
        raw = key.encode()
        self._waiting.setdefault((topic, partition_of(raw, self._partitions)), []).append((raw, value))
        self._behind += 1
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())

    async def _flush(self) -> None:
        """Write what waits, and what comes to wait meanwhile."""
        while self._waiting:
            if not self._stopping:
                await asyncio.sleep(BEHIND_S)
            taken, self._waiting = self._waiting, {}
            count = sum(map(len, taken.values()))
            try:
                lost = await self._append(taken)
            except (KafkaError, TimeoutError):
                lost = count
            self._behind -= count
            if lost:
                metrics.LISTS_LOST.inc(lost)

    async def _append(self, records: Mapping[tuple[str, int], Sequence[tuple[bytes, bytes]]]) -> int:
        """Append records by topic and partition, in batches; returns how many are not acknowledged."""
        async with asyncio.timeout(ACK_TIMEOUT_S):
            producer = await self._started()
            sent: list[tuple[int, asyncio.Future[Any]]] = []
            lost = 0
            for (topic, partition), pairs in records.items():
                batch = producer.create_batch()
                for key, value in pairs:
                    if len(value) > BATCH_BYTES:
                        lost += 1  # a broker might refuse it, and with it what is in its batch
                        continue
                    if batch.append(key=key, value=value, timestamp=None) is None:
                        sent.append(
                            (batch.record_count(), await producer.send_batch(batch, topic, partition=partition))
                        )
                        batch = producer.create_batch()
                        batch.append(key=key, value=value, timestamp=None)  # the first of a batch always fits
                if batch.record_count():
                    sent.append((batch.record_count(), await producer.send_batch(batch, topic, partition=partition)))
            answers = await asyncio.gather(*(future for _, future in sent), return_exceptions=True)
        return lost + sum(n for (n, _), answer in zip(sent, answers, strict=True) if isinstance(answer, BaseException))

    async def stop(self) -> None:
        """Flush and let go."""
        self._stopping = True
        if self._flushing is not None:
            await self._flushing
        if self._producer is not None:
            await self._producer.stop()
