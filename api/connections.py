"""Connections: at most so many, none for ever, and room for whoever asks something.

Flows in: what arrives on sockets. Flows out: the same to aiohttp's parser, and the end of connections that take too long. Always
holds: a connection is busy (a request of it is being served, which has bounds of its own) or idle (nothing complete is there to be
served, or its last answer is not taken yet). When there is no room, one that is idle goes, the longest first: whoever opens
connections and asks nothing is in nobody's way.

Time is counted in looks, about one a second: a loop that was held up for seconds has read nothing meanwhile, and must not close
connections for that.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web_protocol import RequestHandler, RequestPayloadError
from aiohttp.web_server import Server

from api.browser_headers import secure
from api.middleware import failed
from infra import metrics

#: Of answers that a client has not taken, the kernel holds this much (twice, in its way of counting), and not megabytes.
SEND_BUFFER_BYTES = 131_072

#: Between two looks at whether all connections have gone.
EMPTY_PAUSE_S = 0.02

Served = Callable[[Any], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class ConnectionLimits:
    """What a connection may take.

    Attributes
    ----------
    most : connections at a time
    head_looks : from a request's first byte (or the connection, before the first one) until its headers are complete
    head_bytes : of a request's line and headers
    answer_looks : for the client to take what it was sent
    keep_alive_s : between two requests; longer than a load balancer's, or it sends a request into a closing connection
    linger_s : for the rest of a body that was refused
    look_s : between two looks
    """

    most: int = 2_000
    head_looks: int = 10
    head_bytes: int = 65_536
    answer_looks: int = 30
    keep_alive_s: float = 75.0
    linger_s: float = 2.0
    look_s: float = 1.0


def _last_words(status: int, error: str, detail: str, **headers: str) -> bytes:
    """A whole answer, for connections that have no request to answer."""
    response = failed(status, error, detail, {"Connection": "close"} | headers)
    secure(response)
    body = cast("bytes", response.body)
    response.headers["Content-Length"] = str(len(body))
    lines = [f"HTTP/1.1 {status} {response.reason}", *(f"{name}: {value}" for name, value in response.headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


FULL = _last_words(503, "unavailable", "too many connections are open", **{"Retry-After": "1"})
HEAD_TOO_LARGE = _last_words(431, "headers_too_large", "the request's line and headers are too large")


class Connection(RequestHandler):
    """aiohttp's connection, with an account of what it is doing."""

    __slots__ = ("admitted", "book", "busy", "head_bytes", "reading", "since", "unread", "wire")

    def __init__(self, book: "Connections", server: Server, **options: Any) -> None:
        super().__init__(server, **options)
        self.book = book
        self.wire: asyncio.Transport | None = None
        self.admitted = self.busy = False
        #: Whether part of a request's headers is there, or must be soon, and since which look.
        self.reading, self.since, self.head_bytes = True, 0, 0
        #: A body that was answered before it was there: aiohttp reads the rest for `linger_s`.
        self.unread: StreamReader | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let aiohttp have it if there is room."""
        self.wire = cast("asyncio.Transport", transport)
        _kernel_socket(self.wire).setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        if self.book.admit(self):
            super().connection_made(transport)
        else:
            self.wire.write(FULL)
            self.wire.close()

    def data_received(self, data: bytes) -> None:
        """Parse, and note whether a request's headers have begun or are complete."""
        if self.busy or not data or (self.unread is not None and not self.unread.is_eof()):
            super().data_received(data)
            return
        self.unread = None
        if not self.reading:
            self.reading, self.since, self.head_bytes = True, self.book.looks, 0
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self.book.begun(self)
            return
        self.head_bytes += len(data)
        if self.head_bytes > self.book.limits.head_bytes:
            metrics.CONNECTIONS_CLOSED.labels("large_head").inc()
            if self.transport is not None:
                self.transport.write(HEAD_TOO_LARGE)
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """It is gone."""
        self.book.left(self)
        super().connection_lost(exc)

    def drop(self) -> None:
        """End it now, whatever has not been sent."""
        self.force_close()
        if self.wire is not None:
            if _unsent(self):
                # Closed as usual, the kernel would keep what is on its way for a client that never takes it.
                _kernel_socket(self.wire).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.wire.abort()

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Tell of what is our fault; of a client that breaks off or sends nonsense while nobody reads, aiohttp tells at length."""
        error = kw.get("exc_info")
        if self.transport is None or isinstance(error, ConnectionError | HttpProcessingError | RequestPayloadError):
            metrics.BAD_REQUESTS.inc()
        else:
            super().log_exception(*args, **kw)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what is no HTTP; aiohttp's own answer repeats the bytes, and its log the address."""
        self.book.ended(self)
        if status >= 500:
            self.log_exception("a request failed outside of its view", exc_info=exc)
            response = failed(500, "internal", "the answer could not be computed; the log says why")
        else:
            metrics.BAD_REQUESTS.inc()
            if isinstance(exc, LineTooLong):
                response = failed(431, "headers_too_large", "the request's line or a header is too large")
            else:
                response = failed(400, "bad_http", "this is no HTTP request")
        secure(response)
        response.headers["Connection"] = "close"
        response.force_close()
        return response


class Connections:
    """The account of all connections of a server."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.looks = 0
        self.open = 0
        #: Those that have not asked anything yet, and those that have and are idle; each the longest first.
        self.silent: dict[Connection, None] = {}
        self.idle: dict[Connection, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def admit(self, connection: Connection) -> bool:
        """Whether there is room for one more, once one that does nothing has gone if need be."""
        if self.open >= self.limits.most:
            # Many that are silent are somebody's attempt, or a mistake: those who come and ask have done so long since. A few have
            # just come.
            first, second = (
                (self.silent, self.idle) if 2 * len(self.silent) > self.limits.most else (self.idle, self.silent)
            )
            oldest = next(iter(first), None) or next(iter(second), None)
            if oldest is None:
                metrics.CONNECTIONS_CLOSED.labels("full").inc()
                return False
            self._end(oldest, "room")
        connection.admitted, connection.since = True, self.looks
        self.open += 1
        self.silent[connection] = None
        metrics.CONNECTIONS.set(self.open)
        return True

    def begun(self, connection: Connection) -> None:
        """A request is complete but for its body."""
        if not connection.busy:
            connection.busy, connection.reading = True, False
            self._forget(connection)

    def ended(self, connection: Connection) -> None:
        """Its answer is there, if not sent."""
        if connection.busy:
            connection.busy, connection.since = False, self.looks
            if connection.admitted:
                self.idle[connection] = None

    def left(self, connection: Connection) -> None:
        """It is closed."""
        if connection.admitted:
            connection.admitted = False
            self.open -= 1
            self._forget(connection)
            metrics.CONNECTIONS.set(self.open)

    async def empty(self, within_s: float) -> None:
        """Wait until none is open, for so long."""
        deadline = asyncio.get_running_loop().time() + within_s
        while self.open and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - once in a worker's life
            await asyncio.sleep(EMPTY_PAUSE_S)

    def look(self) -> None:
        """Close what has taken too long."""
        self.looks += 1
        for connection in (*self.silent, *self.idle):
            age = self.looks - connection.since
            if connection.reading:
                # The first look may come at once.
                if age > self.limits.head_looks:
                    self._end(connection, "slow_head")
            elif age > self.limits.answer_looks and _unsent(connection):
                self._end(connection, "slow_reader")

    def keep_looking(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look every `look_s`, until stopped."""
        self._timer = loop.call_later(self.limits.look_s, self._look_again, loop)

    def _look_again(self, loop: asyncio.AbstractEventLoop) -> None:
        self.keep_looking(loop)
        self.look()

    def stop_looking(self) -> None:
        """The server stops."""
        if self._timer is not None:
            self._timer.cancel()

    def _forget(self, connection: Connection) -> None:
        self.silent.pop(connection, None)
        self.idle.pop(connection, None)

    def _end(self, connection: Connection, why: str) -> None:
        metrics.CONNECTIONS_CLOSED.labels(why).inc()
        self.left(connection)
        connection.drop()


def _kernel_socket(transport: asyncio.Transport) -> socket.socket:
    return cast("socket.socket", transport.get_extra_info("socket"))


def _unsent(connection: Connection) -> bool:
    """Whether the client has not taken all of its answers."""
    return connection.wire is not None and connection.wire.get_write_buffer_size() > 0


class GuardedServer(Server):
    """aiohttp's server, whose connections are accounted for."""

    def __init__(self, serve: Served, limits: ConnectionLimits, **options: Any) -> None:
        self.book = Connections(limits)
        self._serve = serve
        super().__init__(
            self._served,
            keepalive_timeout=limits.keep_alive_s,
            lingering_time=limits.linger_s,
            # A body nobody has read yet: up to twice this waits in memory.
            read_bufsize=65_536,
            # `api.bodies` unpacks.
            auto_decompress=False,
            access_log=None,
            **options,
        )
        self.book.keep_looking(self._loop)

    async def _served(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast("Connection", request.protocol)
        self.book.begun(connection)
        try:
            return await self._serve(request)
        finally:
            connection.unread = None if request.content.is_eof() else request.content
            self.book.ended(connection)

    def __call__(self) -> RequestHandler:
        """A new connection, as the event loop asks for it."""
        return Connection(self.book, self, loop=self._loop, **self._kwargs)

    def pre_shutdown(self) -> None:
        """Close what is idle, as aiohttp does, and look no more."""
        self.book.stop_looking()
        super().pre_shutdown()


class GuardedRunner(web.AppRunner):
    """aiohttp's runner, with the server above. Told to stop, it waits `shutdown_timeout` for requests under way."""

    def __init__(self, app: web.Application, limits: ConnectionLimits) -> None:
        super().__init__(app, access_log=None, shutdown_timeout=3.0)
        self._limits = limits

    async def _make_server(self) -> Server:
        made = await super()._make_server()
        return GuardedServer(
            made.request_handler, self._limits, request_factory=made.request_factory, loop=asyncio.get_running_loop()
        )
