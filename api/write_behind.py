"""Values on their way to Redis: callers leave the latest of a key here, and one task writes what has come, a pipeline at a time.

Flows in: values by key, and deletions. Flows out: `SET` with an expiry, `DEL`. Always holds: who leaves a value waits for nothing;
what waits is bounded in number and bytes, and what finds no room or no Redis is dropped and counted. A deletion stays until Redis has
confirmed it, and is written before what was left later.
"""

import asyncio
from contextlib import suppress
from itertools import islice

import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from api.breaker import Breaker, BreakerOpen, State
from infra import metrics

log = structlog.get_logger(__name__)

#: A value waits this long for company.
FLUSH_PAUSE_S = 0.1
#: Of one pipeline: to pack them and to read what comes back holds the loop for about 2 ms.
PIPELINE_VALUES = 200
#: For one pipeline; a server that takes longer is behind anyway.
WRITE_BUDGET_S = 0.5
#: For what still waits when a worker stops.
LAST_WRITE_BUDGET_S = 1.0
#: Many times what comes in a pause: what a server that stands still may cost in memory.
MAX_WAITING, MAX_WAITING_BYTES = 10_000, 32 << 20
#: Deletions that are not confirmed.
MAX_DELETED = 10_000

OUTCOMES = ("stored", "replaced", "dropped", "failed")


class WriteBehind:
    """Writes for as long as it is started.

    Parameters
    ----------
    redis : where to
    ttl_s : whole seconds for which a value is kept there
    """

    def __init__(self, redis: Redis, ttl_s: int) -> None:
        self._redis, self._ttl_s = redis, ttl_s
        self._waiting: dict[bytes, bytes] = {}
        self._waiting_bytes = 0
        # With the number of the deletion, so that one that comes while an earlier is under way is not taken for it.
        self._deleted: dict[bytes, int] = {}
        self._deletions = 0
        # A server that is full answers, and is no reason to stop reading from it; its errors are counted one by one.
        self._breaker = Breaker("redis_write", answers=(ResponseError,))
        self._wake, self._written = asyncio.Event(), asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._counts = {outcome: metrics.CACHE_WRITES.labels(outcome) for outcome in OUTCOMES}

    async def start(self) -> None:
        """Begin to write; Redis need not be there."""
        if self._task is None:
            self._task = asyncio.create_task(self._keep_flushing(), name="write-behind")

    async def stop(self) -> None:
        """Write what waits, if Redis takes it at once, and end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            self._task = None
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WRITE_BUDGET_S):
                    await self._flush()

    def put(self, key: bytes, value: bytes) -> None:
        """Leave a value; it may be lost."""
        before = self._waiting.get(key)
        size = self._waiting_bytes + len(value) - (0 if before is None else len(before))
        if size > MAX_WAITING_BYTES or (before is None and len(self._waiting) >= MAX_WAITING):
            self._counts["dropped"].inc()
            return
        if before is not None:
            self._counts["replaced"].inc()
        self._waiting[key] = value
        self._waiting_bytes = size

    def waiting(self, key: bytes) -> bytes | None:
        """The value that waits."""
        return self._waiting.get(key)

    def is_deleted(self, key: bytes) -> bool:
        """Whether what Redis has under `key`, if anything, is to be deleted."""
        return key in self._deleted

    async def delete(self, key: bytes, budget_s: float) -> bool:
        """Drop what waits, and delete what Redis has; whether it has confirmed that. If not, it will be told again."""
        self._take(key)
        if key not in self._deleted and len(self._deleted) >= MAX_DELETED:
            return False
        self._deletions += 1
        self._deleted[key] = self._deletions
        self._wake.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(budget_s), self._written:
                await self._written.wait_for(lambda: key not in self._deleted)
        return key not in self._deleted

    def _take(self, key: bytes) -> bytes:
        """The value that waits, which then waits no more; empty if there is none."""
        value = self._waiting.pop(key, b"")
        self._waiting_bytes -= len(value)
        return value

    async def _keep_flushing(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_PAUSE_S):
                    await self._wake.wait()
            self._wake.clear()
            await self._flush()

    async def _flush(self) -> None:
        # No longer than for what waited at the beginning: whoever deletes waits for the end.
        for _ in range(0, max(len(self._waiting), len(self._deleted)), PIPELINE_VALUES):
            deletions = dict(islice(self._deleted.items(), PIPELINE_VALUES))
            values = {key: self._take(key) for key in list(islice(self._waiting, PIPELINE_VALUES))}
            await self._write(deletions, values)
        async with self._written:
            self._written.notify_all()

    async def _write(self, deletions: dict[bytes, int], values: dict[bytes, bytes]) -> None:
        """Write one pipeline. `values` wait no more, so each is counted here."""
        stored, otherwise = 0, "failed"
        try:
            if self._breaker.state is not State.CLOSED:
                # Not with values: a server that reads nothing would let megabytes pile up in sockets, a pipeline a trial.
                await self._breaker.call(self._redis.ping, WRITE_BUDGET_S)
            stored = await self._breaker.call(lambda: self._pipeline(deletions, values), WRITE_BUDGET_S)
        except BreakerOpen:
            otherwise = "dropped"
        except Exception as error:  # noqa: BLE001 - whatever a client's library raises must not end the task; counted here, said by the breaker
            log.debug("values were not written", error=repr(error))
        finally:
            self._counts["stored"].inc(stored)
            self._counts[otherwise].inc(len(values) - stored)

    async def _pipeline(self, deletions: dict[bytes, int], values: dict[bytes, bytes]) -> int:
        """Write, and settle the deletions that are confirmed; how many values are stored."""
        pipeline = self._redis.pipeline(transaction=False)
        for key in deletions:
            pipeline.delete(key)
        for key, value in values.items():
            pipeline.set(key, value, ex=self._ttl_s)
        answers = await pipeline.execute(raise_on_error=False)
        for (key, number), answer in zip(deletions.items(), answers, strict=False):
            if not isinstance(answer, Exception) and self._deleted.get(key) == number:
                del self._deleted[key]
        return sum(not isinstance(answer, Exception) for answer in answers[len(deletions) :])
