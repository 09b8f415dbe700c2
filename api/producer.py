"""What the API writes to Kafka: events, videos and users, acknowledged before the client is told so."""

import asyncio
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from api.errors import Problem, unavailable
from infra import metrics
from infra.kafka_security import aiokafka_options
from topics.partitions import partition_of

#: A client waits this long for the broker's acknowledgement, then is told to come again.
ACK_TIMEOUT_S = 5.0
#: Batches wait this long for company: single posts share a request to the broker.
LINGER_MS = 2
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
        self._behind: set[asyncio.Task[None]] = set()

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    **aiokafka_options(self._bootstrap),
                    enable_idempotence=True,
                    linger_ms=LINGER_MS,
                    request_timeout_ms=int(ACK_TIMEOUT_S * 1000),
                )
                await producer.start()
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
        if len(self._behind) >= MAX_BEHIND:
            metrics.LISTS_LOST.inc()
            return
        task = asyncio.create_task(self._write_behind(topic, key, value))
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

    async def _write_behind(self, topic: str, key: str, value: bytes) -> None:
        try:
            await self.write(topic, [(key, value)])
        except Problem:
            metrics.LISTS_LOST.inc()

    async def stop(self) -> None:
        """Flush and let go."""
        await asyncio.gather(*self._behind)
        if self._producer is not None:
            await self._producer.stop()
