"""What stands between the network and the views, put together.

Flows in: what the composition root was told. Flows out: the middlewares in their order, and Faust's web server with bounds on its
connections. From the outside in: connections (`api.connections`), the envelope (`api.envelope`), problems as answers
(`api.middleware`), admission and bodies (`api.admission`, `api.bodies`), a view.
"""

from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from faust.web.drivers.aiohttp import Web

from api.access_log import AccessLog
from api.admission import Admission, Limiter
from api.bodies import Bodies
from api.connections import ConnectionLimits, GuardedRunner
from api.cors import Cors
from api.envelope import Envelope
from api.keys import KeyRing
from api.middleware import MAX_BODY_BYTES, problems


@dataclass(frozen=True)
class Guard:
    """What a worker's HTTP interface is guarded by.

    Attributes
    ----------
    keys : None asks for no keys
    metrics_open : lets everybody read what is counted
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
            admin_port=None if self.admin is None else self.admin[1],
        )
        app = web.Application(middlewares=[envelope.wrap, problems, admission.admit], client_max_size=MAX_BODY_BYTES)
        app.on_response_prepare.append(envelope.dress)
        return app

    def runner(self, app: web.Application) -> GuardedRunner:
        """What serves an application."""
        return GuardedRunner(app, self.limits)


class WebServer(Web):
    """Faust's web server, guarded."""

    def __init__(self, app: Any, guard: Guard) -> None:
        super().__init__(app)
        self.web_app = guard.application()
        self._runner = guard.runner(self.web_app)
        self._admin = guard.admin

    async def start_server(self) -> None:
        """Open the doors."""
        await super().start_server()
        if self._admin is not None:
            await web.TCPSite(self._runner, *self._admin).start()
