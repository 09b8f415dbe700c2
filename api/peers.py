"""Asking another worker: one request, within a budget, and never at a price for whoever asks.

A request flows in, what its reader makes of the answer flows out, with how it went. Always holds: a peer that is slow, away, broken or
too talkative costs at most the budget (see `api.budget`), and soon nothing, for it is left alone for a while; requests under way,
connections and bytes of an answer are bounded.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Generic, NamedTuple, TypeVar

import aiohttp
import structlog
from yarl import URL

from api.breaker import Breaker, BreakerOpen, State
from api.hedge import hedged
from infra import metrics

log = structlog.get_logger(__name__)
T = TypeVar("T")

#: Requests under way, each for its budget; those that wait for something may be half of them, so others find room.
MAX_HOPS = 128
#: A hop has two requests at most, and each a connection.
MAX_CONNECTIONS = 2 * MAX_HOPS
#: Shorter than a worker keeps a connection (`api.connections`): a request must not go into a closing one.
KEEP_ALIVE_S = 30.0
#: Of 200 places with reasons and titles in full; what is longer is none of our answers.
MAX_ANSWER_BYTES = 1 << 20
#: A breaker each; as many as a version has partitions at most.
MAX_PEERS = 256


class Declined(Exception):
    """The peer has answered that it does not: 4xx."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class BadAnswer(Exception):
    """The peer has answered with nothing that can be passed on."""


class Question(NamedTuple, Generic[T]):
    """What a peer is asked.

    Attributes
    ----------
    path : with the query, encoded
    read : makes something of the body of a 200; raises ValueError if it cannot
    within_s : for an answer
    hedge_s : until it is asked again
    waits : whether the peer may have to wait for something
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None
    read: Callable[[bytes], T]
    within_s: float
    hedge_s: float
    waits: bool = False


class Reply(NamedTuple, Generic[T]):
    """How it went, as in the metric, and the answer if that is "answered"."""

    outcome: str
    answer: T | None = None


class Peers:
    """Asks workers by their URLs, for as long as it is started."""

    def __init__(self, max_hops: int = MAX_HOPS) -> None:
        self._max_hops, self._under_way = max_hops, 0
        self._breakers: OrderedDict[str, Breaker] = OrderedDict()
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Make the pool of connections."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=KEEP_ALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            # Budgets are ours (`api.budget`), as they look at whether the loop was held.
            timeout=aiohttp.ClientTimeout(total=None),
            # What is packed can be unpacked to anything.
            auto_decompress=False,
            headers={"Accept-Encoding": "identity", "User-Agent": "headrace"},
        )

    async def stop(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def ask(self, peer: str, question: Question[T]) -> Reply[T]:
        """Ask the worker at a URL; raises nothing."""
        if self._session is None or self._under_way >= self._max_hops // (2 if question.waits else 1):
            return Reply("busy")
        session = self._session

        async def once() -> T:
            with metrics.HOP_SECONDS.time():
                return await hedged(
                    lambda: _asked(session, peer, question), question.hedge_s, (Declined,), metrics.HOP_HEDGES.inc
                )

        self._under_way += 1
        try:
            return Reply("answered", await self._breaker(peer).call(once, question.within_s))
        except BreakerOpen:
            return Reply("open")
        except Declined as declined:
            return Reply({404: "not_found", 421: "misdirected"}.get(declined.status, "refused"))
        except TimeoutError:
            return Reply("timeout")
        except Exception as error:  # noqa: BLE001 - whatever a client's library raises, others can be asked; it is counted
            log.debug("a worker did not answer as it should", peer=peer, error=repr(error))
            return Reply("failed")
        finally:
            self._under_way -= 1

    def _breaker(self, peer: str) -> Breaker:
        found = self._breakers.get(peer)
        if found is None:
            found = self._breakers[peer] = Breaker(peer, answers=(Declined,), tell=self._tell)
            if len(self._breakers) > MAX_PEERS:
                self._breakers.popitem(last=False)
        self._breakers.move_to_end(peer)
        return found

    def _tell(self, _state: State) -> None:
        metrics.HOP_PEERS_AWAY.set(sum(each.state is not State.CLOSED for each in self._breakers.values()))


async def _asked(session: aiohttp.ClientSession, peer: str, question: Question[T]) -> T:
    url = URL(peer + question.path, encoded=True)
    async with session.request(
        question.method, url, data=question.body, headers=question.headers, allow_redirects=False
    ) as response:
        if 400 <= response.status < 500:
            raise Declined(response.status)
        if response.status != 200:
            raise BadAnswer(f"status {response.status}")
        body = bytearray()
        while part := await response.content.readany():
            body += part
            if len(body) > MAX_ANSWER_BYTES:
                raise BadAnswer(f"more than {MAX_ANSWER_BYTES:,} bytes")
    try:
        return question.read(bytes(body))
    except ValueError as error:
        raise BadAnswer(str(error)) from error
