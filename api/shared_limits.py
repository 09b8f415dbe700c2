"""One rate limit of all workers, without asking Redis for a request.

Ten times a second a worker tells Redis what its clients have spent since, and hears what they owe for all workers together. Always
holds: over some time a client gets the rate, however many workers it asks; until they have heard of each other, each worker may grant
a burst. Where Redis is away, each worker limits for itself. What was spent meanwhile is not told later: by then it is paid back, or
the worker itself remembers it.
"""

import asyncio

import structlog
from redis.asyncio import Redis

from api.breaker import Breaker, BreakerOpen
from api.limits import RateLimits
from infra import metrics

log = structlog.get_logger(__name__)

LAYOUT = 1
#: A client that asks two workers gets a tenth of a second's rate twice, at most.
EXCHANGE_PAUSE_S = 0.1
EXCHANGE_BUDGET_S = 0.25
#: Of one script: Redis does nothing else meanwhile.
MAX_CLIENTS = 500

#: The bucket of `RateLimits`, by Redis's clock. KEYS: clients; ARGV: seconds that each has spent. Returns seconds that each owes.
SPEND = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local owed = {}
for i, key in ipairs(KEYS) do
  local paid_at = math.max(tonumber(redis.call('GET', key)) or now, now) + ARGV[i]
  redis.call('SET', key, string.format('%.6f', paid_at), 'PX', math.ceil((paid_at - now) * 1000) + 1)
  owed[i] = string.format('%.6f', paid_at - now)
end
return owed
"""


class SharedLimits:
    """Exchanges for as long as it is started.

    Parameters
    ----------
    limits : of this worker
    redis : see `api.redis_client`
    namespace : first part of the keys, `app:version`
    """

    def __init__(self, limits: RateLimits, redis: Redis, namespace: str) -> None:
        self._limits, self._redis = limits, redis
        # Two rates are two limits: a worker with another setting must not read this one's debts.
        self._prefix = f"{namespace}:{LAYOUT}:limit:{limits.rate:g}:"
        self._breaker = Breaker("redis_limits")
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; Redis need not be there."""
        if self._task is None:
            self._task = asyncio.create_task(self._keep_exchanging(), name="shared-limits")

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            self._task = None

    async def _keep_exchanging(self) -> None:
        while True:
            await asyncio.sleep(EXCHANGE_PAUSE_S)
            await self.exchange()

    async def exchange(self) -> None:
        """Tell what was spent, and take over what is owed; raises nothing."""
        spent = list(self._limits.take_spent().items())
        for begin in range(0, len(spent), MAX_CLIENTS):
            await self._exchange(dict(spent[begin : begin + MAX_CLIENTS]))

    async def _exchange(self, spent: dict[str, int]) -> None:
        keys = [f"{self._prefix}{client}".encode(errors="surrogatepass") for client in spent]
        seconds = [f"{cost / self._limits.rate:.6f}" for cost in spent.values()]
        outcome = "failed"
        try:
            owed = await self._breaker.call(
                lambda: self._redis.eval(SPEND, len(keys), *keys, *seconds), EXCHANGE_BUDGET_S
            )
            self._limits.owe({client: float(debt_s) for client, debt_s in zip(spent, owed, strict=True)})
            outcome = "done"
        except BreakerOpen:
            pass
        except Exception as error:  # noqa: BLE001 - whatever a client's library raises must not end the task; it is counted
            log.debug("limits were not exchanged", error=repr(error))
        metrics.LIMIT_EXCHANGES.labels(outcome).inc()
