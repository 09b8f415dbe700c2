"""`headrace worker`: learn from Kafka and answer over HTTP, until told to stop.

One life of the worker is `cli.worker_life`; this file decides what follows its end: nothing, an error for the operator,
or a new life of the same process. A restart replaces the whole program (exec), so that nothing of a failed life is
left: no client, no task, no open store. The process id stays.
"""

import os
import signal
import sys
import threading
import time
from contextlib import closing
from enum import StrEnum
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import structlog
import typer
from tenacity import RetryCallState, Retrying, retry_if_result, wait_exponential

from cli.active_version import VersionSwitched, VersionWatch, followed
from cli.event_loop import run_to_end
from cli.taking_turns import Turns
from infra.embedded_kafka import BrokerError, open_broker
from infra.kafka_address import kafka_address
from infra.kafka_probe import ask_or_raise, is_free
from infra.listeners import Listeners
from infra.logs import configure_logs
from infra.settings import Settings
from state.errors import StateError
from topics.groups import committed
from topics.specs import TopicMismatch, TopicsUnavailable, ensure_topics, specs
from topics.versions import BadVersionRecord, versions_spec

if TYPE_CHECKING:
    from agents.app import HeadraceApp

log = structlog.get_logger(__name__)

#: Pause before a restart, in seconds: doubled up to the longest, from the first again once a worker has been ready.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
#: Hands the last pause to the next life. No HEADRACE_ before it: it is no setting.
PAUSE_VARIABLE = "_HEADRACE_RESTART_PAUSE_S"
#: Loading kernels takes a second; when it takes longer they are being compiled, and somebody should be told.
SLOW_LOAD_S = 3.0
BROKER_PROBE_S = 5.0
#: What waits for the interpreter gets it after this. The thread that fetches needs it several times a fetch, for some microseconds
#: each; at Python's own 5 ms a fetch takes longer than all else that happens to an event, while the loop is full.
SWITCH_S = 0.0005

#: What a restart cannot mend.
LASTING = (StateError, TopicMismatch, BadVersionRecord)


class Role(StrEnum):
    """What a worker does; `Settings.role`."""

    ALL = "all"
    LEARN = "learn"
    SERVE = "serve"


class PortTaken(RuntimeError):
    """The HTTP port is in use."""


def worker(
    role: Annotated[
        Role | None,
        typer.Option(
            help="all: learn and answer. learn: answer no clients. serve: answer from copies of what others learn, to which"
            " they add nothing. By default HEADRACE_ROLE, else all."
        ),
    ] = None,
) -> None:
    """Run a worker. Uses KAFKA_BOOTSTRAP_SERVERS, or the embedded broker of HEADRACE_HOME.

    A failure that a restart mends (the broker went away, another worker took over) is answered by starting anew from
    the last committed checkpoint; one that needs an operator ends the command. Where HEADRACE_VERSION is not set, it
    serves the active version, and changes to another by itself when `headrace replay` has built one.
    """
    if role is not None:
        # The setting, for the next life too.
        os.environ["HEADRACE_ROLE"] = role.value
    settings = Settings()
    configure_logs(settings.log_format, settings.log_level)
    _leave_on_signals()
    pause_s = float(os.environ.pop(PAUSE_VARIABLE, 0.0))
    listeners = Listeners.from_environment()
    _require_free(listeners, settings.web_host, settings.web_port, "HEADRACE_WEB_PORT")
    if settings.metrics_port is not None:
        _require_free(listeners, settings.admin_host, settings.metrics_port, "HEADRACE_METRICS_PORT")
    sys.setswitchinterval(SWITCH_S)
    load_kernels()
    _require_guarded(settings)
    _await_broker(settings)
    failure: BaseException | None
    try:
        failure, was_ready = _live(settings, listeners)
    except BrokerError as error:
        if not pause_s and not settings.kafka_bootstrap_servers:
            raise  # an embedded broker that cannot even start once
        failure, was_ready = error, False
    except TopicsUnavailable as error:
        failure, was_ready = error, False
    if failure is None:
        return
    if isinstance(failure, LASTING):
        raise failure
    if isinstance(failure, VersionSwitched):
        # Clients wait for the next life, which comes at once; where it may take longer, they had better be refused.
        listeners.hand_over()
        _restart(failure, 0.0)
    _restart(failure, FIRST_PAUSE_S if was_ready or not pause_s else min(2 * pause_s, LONGEST_PAUSE_S))


def _require_free(listeners: Listeners, host: str, port: int, variable: str) -> None:
    if not listeners.has(host, port) and not is_free(host, port):
        raise PortTaken(f"port {port} of {host} is in use: set {variable} to another")


def _live(settings: Settings, listeners: Listeners) -> tuple[BaseException | None, bool]:
    """Run one life: returns what ended it (None: it was told to stop), and whether it had been ready."""
    from cli.worker_life import live

    with open_broker(settings) as broker:
        ensure_topics(broker.bootstrap, [versions_spec(settings.app)])
        serving, active = followed(settings, broker.bootstrap)
        ensure_topics(broker.bootstrap, specs(serving.app, serving.version, serving.partitions))
        # Where the version before had come when this one took over: those dead letters are written.
        previous = None if active is None else active.previous
        judged = (
            {} if previous is None else committed(broker.bootstrap, f"{serving.app}.{previous}", serving.partitions)
        )
        turns = Turns(serving.peer_url)
        with closing(turns), VersionWatch(serving, broker.bootstrap, pinned=settings.version_is_set) as watch:

            def look(app: "HeadraceApp") -> VersionSwitched | None:
                switched = watch.switched()
                if not app.started_once:
                    return switched  # nobody is served yet
                return (
                    switched if turns.ours(app.owners.others(), ready=app.ready, wanted=switched is not None) else None
                )

            return run_to_end(live(serving, broker, look, judged, listeners=listeners))


def _require_guarded(settings: Settings) -> None:
    """Raise SettingsError now, rather than once a broker is there, if the HTTP interface would not be guarded as it is told."""
    from agents.worker import guard_of

    guard_of(settings)


def _leave_on_signals() -> None:
    """Outside of a life, Ctrl-C and SIGTERM end the command at once and cleanly; the second one kills."""

    def leave(signum: int, _: FrameType | None) -> NoReturn:
        signal.signal(signum, signal.SIG_DFL)
        sys.exit(0)

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, leave)


def load_kernels() -> None:
    """Load the compiled loops of the models; the first start on a machine compiles them."""
    told = threading.Timer(SLOW_LOAD_S, lambda: log.info("compiling kernels, once a machine: up to a minute"))
    told.daemon = True
    told.start()
    from state.engine import Engine, EngineOptions

    Engine(EngineOptions(partitions=1), b"warm").replica.row_of("warm")
    told.cancel()


def _await_broker(settings: Settings) -> None:
    """Wait for the broker that the operator named, for as long as it takes; the embedded one is started, not awaited.

    Raises BrokerRefused where one is there that will not speak with us, and SettingsError as `kafka_address`.
    """
    servers = kafka_address(settings)
    if servers is None:
        return

    def say(state: RetryCallState) -> None:
        seconds = state.next_action.sleep if state.next_action else 0.0
        hint = state.outcome.result().hint if state.outcome else ""
        log.warning(
            f"no Kafka broker answers at {servers} (KAFKA_BOOTSTRAP_SERVERS){hint}; trying again", seconds=seconds
        )

    wait = wait_exponential(multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S)
    Retrying(wait=wait, retry=retry_if_result(lambda answer: answer.cluster_id is None), before_sleep=say)(
        ask_or_raise, servers, BROKER_PROBE_S
    )


def _restart(failure: BaseException, pause_s: float) -> NoReturn:
    """Become a fresh worker in the same process, after a pause."""
    log.warning("worker restarts", why=f"{type(failure).__name__}: {failure}", seconds=pause_s)
    _leave_on_signals()
    time.sleep(pause_s)
    os.environ[PAUSE_VARIABLE] = str(pause_s)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - no shell is wanted here
