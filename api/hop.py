"""The hop: a worker that does not own the user's shard asks the one that does.

Flows in: a checked request, the user's shard, and who asks. Flows out: the owner's answer, or None, which the next step of the chain
takes up. Always holds: a hop is not hopped again (`api.caller`); an answer that is not of this user, or longer than what was asked
for, is none; the owner alone logs the list and keeps it.
"""

import functools
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from agents.owners import Owners
from api.caller import HOP_HEADER, Caller, new_hop
from api.errors import not_found
from api.peers import Peers, Question, Reply, T
from api.requests import ListRequest
from api.schemas import KnownUser, Recommendations
from infra import metrics

#: For the owner's answer, beside what it is allowed to wait for. Between two machines an answer takes a few ms; a loop that a
#: checkpoint holds, some tens.
HOP_S = 0.15
#: When it is asked again: on a connection that has gone stale, or whose packet is lost, for a busy owner answers both at once.
HEDGE_S = 0.04


class Hop(NamedTuple):
    """Asks owners.

    Attributes
    ----------
    owners : by shard
    peers : how they are asked
    group : of this worker
    """

    owners: Owners
    peers: Peers
    group: str

    async def list_for(self, asked: ListRequest, partition: int, caller: Caller) -> Recommendations | None:
        """The owner's list; it waits for `min_offset` there."""
        # All fields are in the body, those of a scenario too, so that it means the same whatever the owner's settings say.
        body = msgspec.json.encode(msgspec.structs.replace(asked, scenario=None))
        waits_s = asked.wait_ms / 1000 if asked.min_offset else 0.0
        headers = {**self._headers(caller), "Content-Type": "application/json"}
        read = functools.partial(_read_list, asked)
        reply = await self._ask(
            partition,
            Question(
                "POST", "/v1/recommend", headers, body, read, waits_s + HOP_S, waits_s + HEDGE_S, waits=waits_s > 0
            ),
        )
        return reply.answer

    async def known_user(self, user_id: str, partition: int, caller: Caller) -> KnownUser | None:
        """What the owner knows of a user. Raises Problem (404) where it knows nothing."""
        path, read = f"/v1/users/{quote(user_id, safe='')}", functools.partial(_read_user, user_id)
        reply = await self._ask(partition, Question("GET", path, self._headers(caller), None, read, HOP_S, HEDGE_S))
        if reply.outcome == "not_found":
            raise not_found(f"nothing is known of user {user_id!r}")
        return reply.answer

    async def _ask(self, partition: int, question: Question[T]) -> Reply[T]:
        peer = self.owners.url_of(partition)
        reply: Reply[T] = Reply("nobody") if peer is None else await self.peers.ask(peer, question)
        metrics.HOPS.labels(reply.outcome).inc()
        return reply

    def _headers(self, caller: Caller) -> dict[str, str]:
        return {**caller.headers, HOP_HEADER: new_hop(self.group)}


def _read_list(asked: ListRequest, body: bytes) -> Recommendations:
    found = msgspec.json.decode(body, type=Recommendations)
    if found.user_id != asked.user_id or len(found.items) > asked.n:
        raise ValueError("it is not what was asked for")
    return found


def _read_user(user_id: str, body: bytes) -> KnownUser:
    found = msgspec.json.decode(body, type=KnownUser)
    if found.user_id != user_id:
        raise ValueError("it is not what was asked for")
    return found
