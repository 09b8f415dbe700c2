"""A guarded server on a loop of its own thread: what guards a worker, around a few routes that need no worker."""

import asyncio
import json
import socket
import threading
from types import TracebackType

from aiohttp import web

from api.caller import by_peer
from api.guard import Guard
from api.middleware import answer
from api.scopes import CLIENT, SEES_FIGURES
from infra.kafka_probe import free_port

HOST = "127.0.0.1"


async def events(request: web.Request) -> web.Response:
    """Say how much came."""
    return answer({"bytes": len(await request.read()), "client": request[CLIENT].name}, 202)


async def trending(request: web.Request) -> web.Response:
    """Answer, after as many seconds as asked, with as many bytes as asked."""
    await asyncio.sleep(float(request.query.get("wait_s", "0")))
    if "fail" in request.query:
        raise RuntimeError("it failed")
    body = answer({"filler": "x" * int(request.query.get("bytes", "0"))})
    return by_peer(request, body) if "by_peer" in request.query else body


async def readyz(request: web.Request) -> web.Response:
    """Say whether whoever asks sees what is counted."""
    return answer({"sees_figures": request[SEES_FIGURES]})


async def page(_: web.Request) -> web.Response:
    """Answer as a view does that knows better."""
    headers = {"Content-Security-Policy": "default-src 'self'", "Cache-Control": "max-age=60", "Server": "views/1.2"}
    return web.Response(text="<!doctype html>", content_type="text/html", headers=headers)


async def stream(request: web.Request) -> web.StreamResponse:
    """Answer in as many parts as asked."""
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(int(request.query.get("parts", "2"))):
        await response.write(b"part")
        await asyncio.sleep(0)
    return response


#: `/forgotten` is in no table of scopes.
ROUTES = (
    ("POST", "/v1/events", events),
    ("GET", "/v1/trending", trending),
    ("GET", "/v1/recommend/{user_id}", trending),
    ("GET", "/metrics", trending),
    ("GET", "/readyz", readyz),
    ("GET", "/forgotten", trending),
    ("GET", "/page", page),
    ("GET", "/stream", stream),
)


class GuardedThread:
    """Serves on entering; stopped on leaving."""

    def __init__(self, guard: Guard | None = None) -> None:
        self.guard = guard or Guard()
        self.port = free_port(HOST)
        self.address = (HOST, self.port)
        self.url = f"http://{HOST}:{self.port}"
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)

    def __enter__(self) -> "GuardedThread":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self.loop).result(10)
        return self

    async def _start(self) -> None:
        app = self.guard.application()
        for method, path, handler in ROUTES:
            app.router.add_route(method, path, handler)
        app.router.add_route("HEAD", "/v1/trending", trending)
        self.runner = self.guard.runner(app)
        await self.runner.setup()
        await web.TCPSite(self.runner, HOST, self.port).start()
        if self.guard.admin is not None:
            await web.TCPSite(self.runner, *self.guard.admin).start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            asyncio.run_coroutine_threadsafe(self.runner.cleanup(), self.loop).result(20)
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.close()


class Raw:
    """A socket to a server, for what no client library sends."""

    def __init__(self, address: tuple[str, int], timeout_s: float = 10.0) -> None:
        self.socket = socket.create_connection(address, timeout_s)

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> "Raw":
        """Send all of it."""
        self.socket.sendall(data)
        return self

    def rest(self) -> bytes:
        """All that comes until the other end closes; a reset counts as an end."""
        parts = []
        try:
            while part := self.socket.recv(65_536):
                parts.append(part)
        except ConnectionResetError:
            pass
        return b"".join(parts)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """One answer with a Content-Length: status, headers by lower-case name, body."""
        raw = b""
        while b"\r\n\r\n" not in raw:
            part = self.socket.recv(65_536)
            if not part:
                raise ConnectionError(f"closed after {raw!r}")
            raw += part
        head, _, body = raw.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(body) < int(headers["content-length"]):
            body += self.socket.recv(65_536)
        return int(status.split()[1]), headers, body


def problem(body: bytes) -> str:
    """The kind of problem that a body tells of."""
    return str(json.loads(body)["error"])
