"""Access logs: one structured line a request, without anything that tells of a person.

Flows in: requests that are answered. Flows out: log lines with method, route pattern, status, milliseconds, bytes, the name of the
key, and (from the context of the request) its id. Always holds: no line has a path, a query, an address, a body or a key.
"""

import time
from typing import Literal

import structlog
from aiohttp import web

from api.middleware import method_of, route_of
from api.scopes import CLIENT

log = structlog.get_logger(__name__)

AccessLogMode = Literal["off", "errors", "all"]
#: A good answer that took longer is told of as an error is, also where it waited for `min_offset` as long as it was told to. For
#: others it is the client that was slow.
SLOW_S = 1.0
#: Lines a second of what went wrong. A worker that fails fails a thousand times a second, and says it once.
MOST_A_SECOND = 20
CLIENT_ERROR, SERVER_ERROR = 400, 500


class AccessLog:
    """Writes the lines.

    Parameters
    ----------
    mode : `off`; `errors`, server errors and slow answers, up to `MOST_A_SECOND`; `all`, which costs more than most answers do
    """

    def __init__(self, mode: AccessLogMode = "errors") -> None:
        self._mode = mode
        self._second, self._said, self._unsaid = 0, 0, 0

    def note(self, request: web.Request, response: web.StreamResponse, seconds: float) -> None:
        """Write a request's line, if the mode has it."""
        if self._mode == "off" or (self._mode == "errors" and not self._is_news(response.status, seconds)):
            return
        client = request.get(CLIENT)
        fields = {"unsaid": self._unsaid} if self._unsaid else {}
        self._unsaid = 0
        write = log.warning if response.status >= SERVER_ERROR else log.info
        write(
            "request",
            method=method_of(request),
            route=route_of(request),
            status=response.status,
            ms=round(seconds * 1000, 1),
            bytes=response.content_length or 0,
            client=None if client is None else client.name,
            **fields,
        )

    def _is_news(self, status: int, seconds: float) -> bool:
        if status < SERVER_ERROR and (status >= CLIENT_ERROR or seconds < SLOW_S):
            return False
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._said = second, 0
        self._said += 1
        if self._said > MOST_A_SECOND:
            self._unsaid += 1
            return False
        return True
