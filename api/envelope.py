"""What every request is called by, and every answer carries: an id, and headers for browsers.

Flows in: a request. Flows out: its id, in the answer and in every log line that is written while it is served; the headers of
`api.browser_headers` and `api.cors`; and a line of the access log. Always holds: all answers carry them, streamed ones too.
"""

import itertools
import re
import secrets
import time

import structlog
from aiohttp import web

from api.access_log import AccessLog
from api.browser_headers import secure
from api.cors import Cors
from api.middleware import Handler, method_of, route_of
from infra import tracing

REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
#: What proxies and tracers make: UUIDs, hex, ULIDs. Anything else is not taken: it would stand in our logs.
_SANE = re.compile(r"[A-Za-z0-9_.=-]{8,64}")


class Envelope:
    """Names requests, and dresses answers.

    Parameters
    ----------
    access_log : told of every answer
    cors : whose headers are added
    """

    def __init__(self, access_log: AccessLog, cors: Cors) -> None:
        self._access_log, self._cors = access_log, cors
        # Unique without a system call for each: workers differ in the first part, requests of one in the second.
        self._prefix, self._numbers = secrets.token_hex(6), itertools.count(1)

    @web.middleware
    async def wrap(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Serve the request under its id, and tell the access log."""
        began = time.perf_counter()
        request_id = self.request_id(request.headers.get("X-Request-Id"))
        request[REQUEST_ID] = request_id
        # Each request has a task, and so a context, of its own: nothing has to be unbound.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        if tracing.spans is None:
            response = await handler(request)
        else:
            response = await _traced(tracing.spans, request, handler, request_id)
        self._access_log.note(request, response, time.perf_counter() - began)
        return response

    async def dress(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add the headers, just before they are sent: also to what is streamed, and to what aiohttp itself answers."""
        secure(response)
        response.headers["X-Request-Id"] = request.get(REQUEST_ID) or self.request_id(None)
        if self._cors.enabled:
            self._cors.dress(request.headers.get("Origin"), response)

    def request_id(self, given: str | None) -> str:
        """The id that a request brought, if it is a sane one, else a new one."""
        if given is not None and _SANE.fullmatch(given):
            return given
        return f"{self._prefix}{next(self._numbers):08x}"


async def _traced(spans: tracing.Spans, request: web.Request, handler: Handler, request_id: str) -> web.StreamResponse:
    """Serve the request, and tell of it: a span under its client's, if it came with one, and its stages below."""
    began_ns = time.time_ns()
    parts: list[tuple[int, list[tuple[str, float]]]] = []
    tracing.REQUEST_STAGES.set(parts)
    status = 500
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        method, route = method_of(request), route_of(request)
        spans.done(
            f"{method} {route}",
            began_ns,
            {
                "http.request.method": method,
                "http.route": route,
                "http.response.status_code": status,
                "headrace.request_id": request_id,
            },
            parts,
            headers=request.headers,
            failed=status >= 500,
        )
