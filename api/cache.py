"""The last good list of each user, in Redis: what is answered where nobody who knows the user can be asked.

Lists flow in as bytes and are written behind (`api/write_behind.py`). Bytes flow out within a budget, or None. Always holds: no call
raises because of Redis, and none waits for longer than it may; reads under way and users known to have no list are bounded. A user
whose deletion Redis has not confirmed has no list here, whatever Redis has.
"""

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from api.absent import Absent
from api.breaker import Breaker, BreakerOpen
from api.write_behind import WriteBehind
from infra import metrics

#: Of what callers put: raise it with every change, and lists of before are not found.
LAYOUT = 1
#: A list is good for this long.
TTL_S = 86_400
#: For one lookup.
READ_BUDGET_MS = 20.0
#: Lookups under way at once; a server that stands still holds no more requests than that, and each for its budget only.
MAX_READS = 64
#: Users whom Redis has nothing for, and for how long that is believed: another worker may put a list meanwhile.
ABSENT_TTL_S, MAX_ABSENT = 1.0, 10_000
#: For a deletion to be confirmed.
DELETE_BUDGET_S = 1.0

OUTCOMES = ("hit", "miss", "negative", "failed", "open", "busy")


class ListCache:
    """Lists by user.

    Parameters
    ----------
    redis : see `api.redis_client`; None: there is no cache, and nothing is found, kept or counted
    namespace : first part of the keys, `app:version`
    ttl_s : whole seconds for which a list is kept
    """

    def __init__(self, redis: Redis | None, namespace: str, ttl_s: int = TTL_S) -> None:
        self._redis = redis
        self._writer = None if redis is None else WriteBehind(redis, ttl_s)
        self._prefix = f"{namespace}:{LAYOUT}:list:"
        self._absent = Absent(ABSENT_TTL_S, MAX_ABSENT)
        # An error as an answer, for a key that holds no string, says that the server is there.
        self._breaker = Breaker("redis_read", answers=(ResponseError,))
        self._reading = 0
        self._counts = {outcome: metrics.CACHE_LOOKUPS.labels(outcome) for outcome in OUTCOMES}

    def key(self, user_id: str) -> bytes:
        """Where the user's list is: `{app}:{version}:{layout}:list:{user}`. Any id will do, for it is the last part."""
        return f"{self._prefix}{user_id}".encode(errors="surrogatepass")

    async def start(self) -> None:
        """Begin to write; Redis need not be there."""
        if self._writer is not None:
            await self._writer.start()

    async def stop(self) -> None:
        """Write what waits, if Redis takes it at once, and end. The client stays open."""
        if self._writer is not None:
            await self._writer.stop()

    def put(self, user_id: str, value: bytes) -> None:
        """Leave a list to be written; it may be lost. Costs 2 microseconds, and 12 more in the task that writes."""
        if self._writer is not None:
            key = self.key(user_id)
            self._writer.put(key, value)
            self._absent.discard(key)

    async def get(self, user_id: str, budget_ms: float = READ_BUDGET_MS) -> bytes | None:
        """The user's last list; None if there is none, or no answer within the budget (see `api.budget`)."""
        if self._redis is None or self._writer is None:
            return None
        outcome, value = await self._look_up(self._redis, self._writer, self.key(user_id), budget_ms / 1000)
        self._counts[outcome].inc()
        return value

    async def delete(self, user_id: str, budget_s: float = DELETE_BUDGET_S) -> bool:
        """Remove the user's list, here at once; whether Redis has confirmed it. If not, it will be told again."""
        return self._writer is None or await self._writer.delete(self.key(user_id), budget_s)

    async def _look_up(
        self, redis: Redis, writer: WriteBehind, key: bytes, budget_s: float
    ) -> tuple[str, bytes | None]:
        """The outcome, and the list if it is a hit."""
        waiting = writer.waiting(key)
        if waiting is not None:
            return "hit", waiting
        if key in self._absent:
            return "negative", None
        if self._reading >= MAX_READS:
            return "busy", None
        self._reading += 1
        try:
            value = await self._breaker.call(lambda: redis.get(key), budget_s)
        except BreakerOpen:
            return "open", None
        except Exception:  # noqa: BLE001 - whatever a client's library raises, a list is not worth a failed request; counted
            return "failed", None
        finally:
            self._reading -= 1
        if isinstance(value, bytes) and not writer.is_deleted(key):
            return "hit", value
        self._absent.add(key)
        return "miss", None
