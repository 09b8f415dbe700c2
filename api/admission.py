"""Who is let in: the first thing that happens to a request, before anything of it costs more than its headers.

Flows in: a request whose route is known. Flows out: the view's answer, or why there is none: 401, 403, 421, 429. Always holds: a view
sees only requests whose client has the scope that `api.scopes` asks for, and bodies that are whole.

Without a file of keys everybody on this machine may do everything. That must not mean every web page which is open in its
browser: there a request that names another host (a page that had its own name point here) or that changes something on behalf of
another origin is refused.
"""

import functools
import ipaddress
import math
from typing import Protocol
from urllib.parse import urlsplit

from aiohttp import web

from api.bodies import Bodies
from api.caller import BY_PEER, HOP_HEADER
from api.cors import Cors
from api.errors import Problem, misdirected, not_found
from api.keys import Client, KeyRing, Scope
from api.middleware import Handler, route_of
from api.scopes import CLIENT, OPEN, SEES_FIGURES, needed
from infra import metrics

METRICS = "/metrics"
#: What operators and their tools ask a worker for, whatever its role.
OPERATORS = frozenset({METRICS, "/healthz", "/readyz"})
#: Who asks where no keys are asked for.
ANYBODY = Client("anybody", frozenset(Scope))
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Limiter(Protocol):
    """Says when a client may go on."""

    def allow(self, client: str, cost: int = 1) -> float:
        """Seconds to wait; 0.0 if the request may be served now, and is counted."""
        ...

    def give_back(self, client: str, cost: int) -> None:
        """Do not count what was allowed: another worker has."""
        ...


class Admission:
    """Lets requests in.

    Parameters
    ----------
    keys : None asks for no keys
    metrics_open : lets everybody read what is counted
    peers_only : whoever is neither another worker nor asks for what operators look at is told to go elsewhere
    limiter : None limits nobody
    admin_port : where what needs the scope admin is answered, and nowhere else; None answers it everywhere
    cost_bytes : of events in one request that count as one request
    """

    def __init__(
        self,
        keys: KeyRing | None = None,
        cors: Cors | None = None,
        bodies: Bodies | None = None,
        limiter: Limiter | None = None,
        *,
        metrics_open: bool = False,
        peers_only: bool = False,
        admin_port: int | None = None,
        cost_bytes: int = 16_384,
    ) -> None:
        self._keys, self._cors, self._bodies, self._limiter = keys, cors or Cors(), bodies or Bodies(), limiter
        self._metrics_open, self._cost_bytes = metrics_open, cost_bytes
        self._admin_port, self._peers_only = admin_port, peers_only

    @web.middleware
    async def admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Serve the request if it may be. Raises Problem."""
        if self._cors.enabled and (answer := self._cors.preflight(request)) is not None:
            return answer
        outside = self._admin_port is not None and _port_of(request) != self._admin_port
        if outside and request.match_info.http_exception is None and _is_for_admins(request):
            raise not_found("there is nothing here")
        client = self._local(request) if self._keys is None else self._known(self._keys, request)
        if self._peers_only and HOP_HEADER not in request.headers and route_of(request) not in OPERATORS:
            raise misdirected("this worker learns, and answers no clients (HEADRACE_ROLE=learn): ask one that serves")
        if outside:
            request[SEES_FIGURES] = False
        held = await self._bodies.take(request)
        try:
            if self._limiter is None or client is None:
                return await handler(request)
            cost = self._limit(self._limiter, client, request, held)
            response = await handler(request)
            if BY_PEER in request:
                # Both workers count, as anybody could say that a request was a hop; that it was one we know afterwards.
                self._limiter.give_back(client.name, cost)
            return response
        finally:
            self._bodies.release(held)

    def _local(self, request: web.Request) -> Client:
        """Everybody, if it is nobody's web page."""
        host = request.headers.get("Host", "")
        if not _is_own(host):
            raise Problem(
                421, "wrong_host", "without keys (HEADRACE_API_KEYS) only this machine's own names are answered"
            )
        if request.method not in SAFE and (origin := request.headers.get("Origin")) is not None:
            own = origin in (f"http://{host}", f"https://{host}")
            if not own and not self._cors.allows(origin):
                raise Problem(403, "origin_not_allowed", "pages of this origin may not ask (HEADRACE_CORS_ORIGINS)")
        request[CLIENT], request[SEES_FIGURES] = ANYBODY, True
        return ANYBODY

    def _known(self, keys: KeyRing, request: web.Request) -> Client | None:
        """The client that a request's key belongs to; None for one without a key to what is open."""
        pattern = route_of(request)
        scope = OPEN if self._metrics_open and pattern == METRICS else needed(request.method, pattern)
        token = token_of(request)
        client = None if token is None else keys.client(token)
        if client is not None:
            request[CLIENT] = client
        request[SEES_FIGURES] = self._metrics_open or (client is not None and Scope.ADMIN in client.scopes)
        if scope is OPEN:
            return client
        if client is None:
            raise _no_key("missing" if token is None else "wrong")
        # Where there is no route, there is nothing to keep: any client learns that.
        if scope not in client.scopes and request.match_info.http_exception is None:
            metrics.KEYS_REFUSED.labels("scope").inc()
            raise Problem(
                403,
                "missing_scope",
                f"this needs a key with the scope {scope}",
                {"WWW-Authenticate": f'Bearer realm="headrace", error="insufficient_scope", scope="{scope}"'},
            )
        return client

    def _limit(self, limiter: Limiter, client: Client, request: web.Request, size_bytes: int) -> int:
        """What the request costs. Raises Problem if it may not be served now."""
        # Events are many to a request, anything else is one; lists cost alike.
        cost = max(1, -(-size_bytes // self._cost_bytes)) if request.method == "POST" else 1
        wait_s = limiter.allow(client.name, cost)
        if wait_s > 0:
            metrics.REQUESTS_LIMITED.inc()
            seconds = max(1, math.ceil(wait_s))
            raise Problem(
                429,
                "too_many_requests",
                f"too many requests of this key; go on in {seconds} s",
                {"Retry-After": str(seconds)},
            )
        return cost


def _port_of(request: web.Request) -> int | None:
    """The port that the request came to; None of a connection that is gone."""
    name = None if request.transport is None else request.transport.get_extra_info("sockname")
    return None if name is None else int(name[1])


def _is_for_admins(request: web.Request) -> bool:
    return needed(request.method, route_of(request)) is Scope.ADMIN


def token_of(request: web.Request) -> str | None:
    """What the request says is its key: `Authorization: Bearer`, else `X-API-Key`; None if it says nothing."""
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else request.headers.get("X-API-Key")


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own, and reached by nobody else."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@functools.lru_cache(maxsize=64)
def _is_own(header: str) -> bool:
    """Whether a Host header names this machine, or nothing: browsers name something."""
    try:
        return not header or is_loopback(urlsplit(f"//{header}").hostname or "")
    except ValueError:
        return False


def _no_key(why: str) -> Problem:
    metrics.KEYS_REFUSED.labels(why).inc()
    detail = {
        "missing": "send a key: Authorization: Bearer hr_...",
        "wrong": "the key is none of ours, or not any more",
    }[why]
    error = ', error="invalid_token"' if why == "wrong" else ""
    return Problem(401, f"{why}_key", detail, {"WWW-Authenticate": f'Bearer realm="headrace"{error}'})
