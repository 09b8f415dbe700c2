"""What a test's own HTTP server is made of."""

from collections.abc import Awaitable, Callable

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.Response]]
#: Starts a server; its address.
Server = Callable[[Handler], Awaitable[str]]
