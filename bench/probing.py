"""Probes: events whose effect is looked for in the worker's answers, again and again until it is seen.

Own shard: a user likes the first video of their list, and it is looked for in their list until it is gone. Across the hop: somebody
who has liked video A likes video B, and B is looked for in `/v1/similar/A`. A and B are in no other event, and A belongs to another
shard than the user does: the link can only have come by the evidence topic. A sample is the time from the send to the arrival of
the first answer that shows the effect.
"""

import asyncio
import itertools
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiohttp
import numpy as np
from confluent_kafka import Producer

from topics.interactions import Interaction, encode
from topics.partitions import partition_of
from topics.specs import INTERACTIONS, producer_config

#: Between probes of a kind, and between looks: 8 probes of each kind a second, together about 100 requests a second.
EVERY_S = 0.12
LOOK_S = 0.004
HOP_LOOK_S = 0.04
#: Of the time since the send: looks are at least so far apart.
SLOWER = 0.1
#: The first half of a hop's probe is long known when the second is sent.
BEFORE_S = 3.0
#: An effect that is not seen by then is lost.
LOST_S = 60.0
OWN_USERS = 32
LISTED = 5


class ProbeLost(RuntimeError):
    """An event was sent, and no answer has shown its effect."""


class Pair(NamedTuple):
    """A hop's probe: who likes A and then B."""

    user: str
    a: str
    b: str


def hop_pairs(partitions: int) -> Iterator[Pair]:
    """Yield pairs without end; A's shard is never the user's."""
    for number in itertools.count():
        user = f"hop-{number}"
        home = partition_of(user.encode(), partitions)
        names = (f"hop-{number}-a{salt}" for salt in itertools.count())
        yield Pair(user, next(a for a in names if partition_of(a.encode(), partitions) != home), f"hop-{number}-b")


def quantiles(samples_s: Sequence[float]) -> dict[str, float]:
    """`p50_ms`, `p99_ms` and `n` of samples in seconds."""
    return {
        "p50_ms": round(float(np.quantile(samples_s, 0.5)) * 1000, 1),
        "p99_ms": round(float(np.quantile(samples_s, 0.99)) * 1000, 1),
        "n": len(samples_s),
    }


@dataclass
class Prober:
    """Sends probes to `bootstrap` and looks for them at `url`; times are `at_ms`, of the stream.

    Attributes
    ----------
    look_s, hop_look_s : between looks, at least
    own_s, hop_s : samples in seconds
    requests : sent so far
    """

    bootstrap: str
    url: str
    at_ms: int
    pairs: Iterator[Pair]
    look_s: float = LOOK_S
    hop_look_s: float = HOP_LOOK_S
    own_s: list[float] = field(default_factory=list)
    hop_s: list[float] = field(default_factory=list)
    requests: int = 0

    async def run(self, seconds: float) -> None:
        """Probe for about that long. Raises ProbeLost."""
        self._producer = Producer(producer_config(self.bootstrap) | {"linger.ms": 0})
        self._producer.list_topics(INTERACTIONS, timeout=10)
        async with aiohttp.ClientSession(self.url, connector=aiohttp.TCPConnector(limit=0)) as self._session:
            await asyncio.gather(
                self._keep(seconds, itertools.cycle(self._own(f"own-{n}") for n in range(OWN_USERS))),
                self._keep(seconds, (self._hop(pair) for pair in self._primed(seconds))),
            )
        self._producer.flush(10)

    async def _keep(self, seconds: float, probes: Iterator[Callable[[], Awaitable[None]]]) -> None:
        """Start a probe every so often, whether those before have ended or not; wait for all."""
        await asyncio.sleep(BEFORE_S)
        ends = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            while time.monotonic() < ends:
                group.create_task(_awaited(next(probes)))
                await asyncio.sleep(EVERY_S)

    def _own(self, user: str) -> Callable[[], Awaitable[None]]:
        busy = asyncio.Lock()

        async def probe() -> None:
            if busy.locked():  # the user's last event is still looked for
                return
            async with busy:
                shown = await self._listed(f"/v1/recommend/{user}?n={LISTED}")
                if not shown:
                    return
                began = self._send(user, shown[0])
                await self._look(
                    f"/v1/recommend/{user}?n={LISTED}",
                    lambda listed: shown[0] not in listed,
                    began,
                    self.look_s,
                    self.own_s,
                )

        return probe

    def _primed(self, seconds: float) -> Iterator[Pair]:
        """Pairs whose first half is sent."""
        pairs = list(itertools.islice(self.pairs, int(seconds / EVERY_S) + 10))
        for pair in pairs:
            self._send(pair.user, pair.a)
        return iter(pairs)

    def _hop(self, pair: Pair) -> Callable[[], Awaitable[None]]:
        async def probe() -> None:
            began = self._send(pair.user, pair.b)
            await self._look(
                f"/v1/similar/{pair.a}?n={LISTED}", lambda listed: pair.b in listed, began, self.hop_look_s, self.hop_s
            )

        return probe

    def _send(self, user: str, video: str) -> float:
        event = Interaction(uuid.uuid4().hex, user, video, "like", self.at_ms)
        began = time.monotonic()
        self._producer.produce(INTERACTIONS, encode(event), user.encode())
        self._producer.poll(0)
        return began

    async def _look(
        self, path: str, seen: Callable[[list[str]], bool], began: float, every_s: float, samples: list[float]
    ) -> None:
        look_at = began
        while True:
            # A late effect is looked for less often: looks must not become the load.
            pause_s = max(every_s, SLOWER * (look_at - began))
            look_at = max(look_at + pause_s, time.monotonic())
            await asyncio.sleep(look_at - time.monotonic())
            if seen(await self._listed(path)):
                samples.append(time.monotonic() - began)
                return
            if time.monotonic() - began > LOST_S:
                raise ProbeLost(f"{path} has not shown an event that was sent {LOST_S:.0f} s ago")

    async def _listed(self, path: str) -> list[str]:
        self.requests += 1
        async with self._session.get(path) as answer:
            answer.raise_for_status()
            body: dict[str, Any] = await answer.json()
        return [item["video_id"] for item in body["items"]]


async def _awaited(probe: Callable[[], Awaitable[None]]) -> None:
    await probe()
