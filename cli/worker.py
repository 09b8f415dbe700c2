"""`headrace worker`: learn from Kafka and answer over HTTP, until told to stop."""

import asyncio
import signal
import time
from contextlib import suppress

import structlog

from agents.app import HeadraceApp
from agents.worker import create_app
from infra.embedded_kafka import BrokerError, ensure_broker
from infra.kafka_probe import is_free
from infra.logs import configure_logs
from infra.settings import Settings
from state.engine import Engine, EngineOptions
from state.errors import StateError
from topics.specs import TopicMismatch, TopicsUnavailable, ensure_topics, specs

log = structlog.get_logger(__name__)

#: Pause before a restart, in seconds: doubled up to the longest, from the first again once a worker has been ready.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
#: A worker that is told to stop has this long for its last checkpoints and the goodbye to the group.
STOP_TIMEOUT_S = 20.0

#: What a restart cannot mend.
LASTING = (StateError, TopicMismatch)


class PortTaken(RuntimeError):
    """The HTTP port is in use."""


def worker() -> None:
    """Run a worker. Uses KAFKA_BOOTSTRAP_SERVERS, or the embedded broker of HEADRACE_HOME.

    A failure that a restart mends (the broker went away, another worker took over) is answered by starting anew from the last
    committed checkpoint; one that needs an operator ends the command.
    """
    settings = Settings()
    configure_logs(settings.log_format, settings.log_level)
    if not is_free(settings.web_host, settings.web_port):
        raise PortTaken(f"port {settings.web_port} of {settings.web_host} is in use: set HEADRACE_WEB_PORT to another")
    _warm()
    pause_s = FIRST_PAUSE_S
    started = False
    while True:
        try:
            with ensure_broker(settings) as bootstrap:
                ensure_topics(bootstrap, specs(settings.app, settings.version, settings.partitions))
                app, failure = asyncio.run(_run(settings, bootstrap))
        except (BrokerError, TopicsUnavailable) as error:
            if not started:
                raise
            failure = error
        else:
            started = True
            if failure is None:
                return
            if app.started_once:
                pause_s = FIRST_PAUSE_S
        if isinstance(failure, LASTING):
            raise failure
        log.warning("worker restarts", why=f"{type(failure).__name__}: {failure}", seconds=pause_s)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _warm() -> None:
    """Load the compiled kernels; the first start on a machine compiles those that packages leave to their first use."""
    log.info("loading kernels (compiled once a machine, up to a minute)")
    Engine(EngineOptions(partitions=1), b"warm").replica.row_of("warm")


async def _run(settings: Settings, bootstrap: str) -> tuple[HeadraceApp, BaseException | None]:
    """Run one app to its end; returns what made it fail, None if it was told to stop."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.set)
    app = create_app(settings, bootstrap)
    app.finalize()
    starting = asyncio.ensure_future(app.start())
    announced = False
    while not stop.is_set() and app.failure is None:
        if starting.done() and starting.exception() is not None:
            await app.crash(starting.exception() or RuntimeError("start failed"))
        if app.ready and not announced:
            announced = True
            log.info(
                "worker ready", address=f"http://{settings.web_host}:{settings.web_port}", shards=len(app.engine.shards)
            )
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.2)
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await app.stop()
    except TimeoutError:
        log.warning("the worker did not stop in time; the next start continues from the last checkpoint")
    starting.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await starting
    if app.failure is None:
        log.info("worker stopped")
    return app, app.failure
