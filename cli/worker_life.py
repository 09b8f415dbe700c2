"""One life of a worker: from an app that is built to one that has stopped, on one event loop.

Settings and a broker flow in; what ended the life flows out. It is told to stop by SIGINT or SIGTERM, and stops by
itself when the app fails, its watcher says so, or the broker that this process started has ended.
"""

import asyncio
import gc
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import structlog

from agents.app import HeadraceApp, Places
from agents.worker import create_app
from api.guard import WebServer
from infra.embedded_kafka import Broker, BrokerError
from infra.listeners import Listeners
from infra.settings import Settings
from topics.erasures import Erasures

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 0.2
#: A worker that is told to stop has this long for its last checkpoints and the goodbye to the group.
STOP_TIMEOUT_S = 20.0
#: One that has failed writes no checkpoint, and a goodbye to a broker that is gone would take for ever.
FAILED_STOP_TIMEOUT_S = 5.0


async def live(
    settings: Settings,
    broker: Broker,
    look: Callable[[HeadraceApp], BaseException | None],
    judged: Places | None = None,
    until: Places | None = None,
    listeners: Listeners | None = None,
    forgotten: Erasures | None = None,
) -> tuple[BaseException | None, bool]:
    """Run one app to its end.

    Parameters
    ----------
    look : asked every `LOOK_EVERY_S`; what it returns ends the life, cleanly
    judged, until, forgotten : see `agents.app.WorkerOptions`
    listeners : sockets that it listens on, and leaves to a life after it

    Returns
    -------
    What made it fail, else what `look` returned, else None: it was told to stop; and whether it had owned its shards.
    """
    stop = _stop_on_signals()
    app = create_app(settings, broker.bootstrap, judged, until, listeners, forgotten)
    app.finalize()
    # What was loaded stays: the collector need not walk through it again and again while requests wait.
    gc.collect()
    gc.freeze()
    starting = asyncio.ensure_future(app.start())
    announced = False
    ending: BaseException | None = None
    while not stop.is_set() and app.failure is None and ending is None:
        if starting.done() and (error := starting.exception()) is not None:
            await app.crash(error)
        try:
            broker.check()
        except BrokerError as error:
            await app.crash(error)
        if app.ready and not announced:
            announced = True
            address = f"http://{settings.web_host}:{settings.web_port}"
            log.info("worker ready", address=address, version=settings.version, shards=sorted(app.engine.shards))
        ending = look(app)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.0 if ending else LOOK_EVERY_S)
    if ending is not None and app.failure is None:
        # Another life may follow: clients are to notice nothing.
        await cast("WebServer", app.web).drain()
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S if app.failure is None else FAILED_STOP_TIMEOUT_S):
            await app.stop()
    except TimeoutError:
        log.warning("the worker did not stop in time; the next start continues from the last checkpoint")
    except Exception as error:  # noqa: BLE001 - kept as the life's end; a failure before it is the cause
        app.failure = app.failure or error
    starting.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await starting
    if app.failure is None:
        log.info("worker stopped")
    return app.failure or ending, app.started_once


def _stop_on_signals() -> asyncio.Event:
    """Set an event at the first SIGINT or SIGTERM; the second one kills."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def tell() -> None:
        log.info("stopping: last checkpoints (again to kill)")
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(signum)
            signal.signal(signum, signal.SIG_DFL)
        stop.set()

    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, tell)
    return stop
