"""Servers that answer as a test says."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.bench.servers import Handler, Server


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """Starts a server that answers as it is told; its address."""
    started: list[TestServer] = []

    async def start(answer: Handler) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        started.append(TestServer(app))
        await started[-1].start_server()
        return str(started[-1].make_url("")).rstrip("/")

    yield start
    for each in started:
        await each.close()
