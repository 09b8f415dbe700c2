"""A server on this machine that answers hops as a test has it: badly, late, or not at all."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from aiohttp.test_utils import TestServer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeWorker:
    """Started on entering; `answer` says what it does with each request from then on."""

    def __init__(self, answer: Handler) -> None:
        self.answer = answer
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []

    async def __aenter__(self) -> "FakeWorker":
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self._take)
        self._server = TestServer(app, host="127.0.0.1")
        await self._server.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    @property
    def url(self) -> str:
        return str(self._server.make_url("")).rstrip("/")

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        return await self.answer(request)


def says(body: bytes, status: int = 200, after_s: float = 0.0, headers: Mapping[str, str] | None = None) -> Handler:
    """Always the same."""

    async def answer(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(after_s)
        return web.Response(body=body, status=status, headers=headers)

    return answer
