"""What stands between the network and the views, put together.

Flows in: what the composition root was told. Flows out: the middlewares in their order, and Faust's web server with bounds on its
connections. From the outside in: connections (`api.connections`), the envelope (`api.envelope`), problems as answers
(`api.middleware`), admission and bodies (`api.admission`, `api.bodies`), a view.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, cast

from aiohttp import web
from faust.web.drivers.aiohttp import Web

from api.access_log import AccessLog
from api.admission import Admission, Limiter
from api.bodies import Bodies
from api.connections import ConnectionLimits, GuardedRunner, GuardedServer
from api.cors import Cors
from api.envelope import Envelope
from api.keys import KeyRing
from api.middleware import MAX_BODY_BYTES, problems
from infra.listeners import BACKLOG, Listeners

#: Where clients wait since the life before, doors open when there is something to answer from, or after this: then 503 says why not.
OPEN_WITHIN_S = 30.0
#: Doors that close leave this to clients with an open connection, to ask once more and be told that it ends; then to requests.
DRAIN_S, LAST_REQUESTS_S = 2.0, 3.0
LOOK_S = 0.02


@dataclass(frozen=True)
class Guard:
    """What a worker's HTTP interface is guarded by.

    Attributes
    ----------
    keys : None asks for no keys
    metrics_open : lets everybody read what is counted
    peers_only : it answers other workers and its operator, and no clients
    admin : host and port of a second door, for what needs the scope admin; None: there is one door for all
    limiter : None limits nobody
    """

    keys: KeyRing | None = None
    cors: Cors = field(default_factory=Cors)
    access_log: AccessLog = field(default_factory=AccessLog)
    bodies: Bodies = field(default_factory=Bodies)
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    limiter: Limiter | None = None
    metrics_open: bool = False
    peers_only: bool = False
    admin: tuple[str, int] | None = None

    def application(self) -> web.Application:
        """An application without routes, guarded but for its connections; for those see `runner`."""
        envelope = Envelope(self.access_log, self.cors)
        admission = Admission(
            self.keys,
            self.cors,
            self.bodies,
            self.limiter,
            metrics_open=self.metrics_open,
            peers_only=self.peers_only,
            admin_port=None if self.admin is None else self.admin[1],
        )
        app = web.Application(middlewares=[envelope.wrap, problems, admission.admit], client_max_size=MAX_BODY_BYTES)
        app.on_response_prepare.append(envelope.dress)
        return app

    def runner(self, app: web.Application) -> GuardedRunner:
        """What serves an application."""
        return GuardedRunner(app, self.limits)


class WebServer(Web):
    """Faust's web server, guarded.

    Parameters
    ----------
    listeners : sockets that outlive it, or that the life before has left
    """

    def __init__(self, app: Any, guard: Guard, listeners: Listeners | None = None) -> None:
        super().__init__(app)
        self.web_app = guard.application()
        self.web_app.on_response_prepare.append(self._say_that_it_ends)
        self._runner: GuardedRunner = guard.runner(self.web_app)
        self._admin = guard.admin
        self._own_listeners = listeners is None
        self._listeners = Listeners() if listeners is None else listeners
        self._opening: asyncio.Task[None] | None = None
        self._ends = False

    async def start_server(self) -> None:
        """Open the doors."""
        await self._runner.setup()
        doors = [
            (self.app.conf.web_bind or "", self.app.conf.web_port),
            *([] if self._admin is None else [self._admin]),
        ]
        sites = [
            web.SockSite(self._runner, each, backlog=BACKLOG)
            for door in doors
            for each in self._listeners.listen(*door)
        ]
        self._opening = asyncio.create_task(self._open(sites))
        if not self._listeners.inherited:
            await self._opening

    async def _open(self, sites: list[web.SockSite]) -> None:
        deadline = time.monotonic() + OPEN_WITHIN_S
        if self._listeners.inherited:
            while not cast("Any", self.app).started_once and time.monotonic() < deadline:  # noqa: ASYNC110 - once
                await asyncio.sleep(LOOK_S)
        for site in sites:
            await site.start()

    async def drain(self) -> None:
        """Accept no more connections, and let those that are open end between two requests: every answer says that it is the last."""
        self._ends = True
        if self._opening is not None:
            self._opening.cancel()
        for site in self._runner.sites:
            await site.stop()
        if self._runner.server is None:
            return
        server = cast("GuardedServer", self._runner.server)
        await server.book.empty(DRAIN_S)
        server.pre_shutdown()
        await server.book.empty(LAST_REQUESTS_S)

    async def stop_server(self) -> None:
        """Close the doors."""
        if self._opening is not None:
            self._opening.cancel()
        await super().stop_server()
        if self._own_listeners:
            self._listeners.close()

    async def _say_that_it_ends(self, _: web.Request, response: web.StreamResponse) -> None:
        if self._ends:
            response.force_close()
