"""The composition root of a worker: Faust app, tables, agents and the API on one loop."""

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import faust
import structlog
from faust.auth import Credentials, SASLCredentials, SSLCredentials
from faust.types import Message
from redis.asyncio import Redis

from agents.app import HeadraceApp, Places, WorkerOptions
from agents.owners import Owners
from agents.snapshot_start import StartFrom
from agents.table_store import Stores
from agents.tables import ShardTable, TableManager
from api import experiment_file, scenarios
from api.access_log import AccessLog
from api.admission import Limiter, is_loopback
from api.browse import BROWSE_ROUTES
from api.cache import ListCache
from api.connections import ConnectionLimits
from api.cors import BadOrigins, Cors
from api.guard import Guard, WebServer
from api.hop import Hop
from api.keys import BadKeys, KeyRing
from api.limits import RateLimits
from api.listing import Listing
from api.page.views import page_routes
from api.peers import MAX_CONNECTIONS, Peers
from api.producer import LogWriter
from api.redis_client import close_redis, redis_client, say_refusal
from api.requests import Presets
from api.shared_limits import SharedLimits
from api.views import ROUTES, Shared, mount
from infra import tracing
from infra.kafka_security import security_of
from infra.listeners import Listeners
from infra.open_files import allow_open_files
from infra.settings import Settings, SettingsError
from state.engine import Engine, EngineOptions
from state.experiment import Experiment
from state.objective import BadObjective, Objective
from topics import specs
from topics.erasures import Erasures
from topics.signals import DEFAULT_SIGNALS, BadSignals, SignalTable

log = structlog.get_logger(__name__)

#: The group notices a dead worker after this; stock Faust takes a minute. One that stops says so itself.
SESSION_TIMEOUT_S = 10.0
#: Batches of up to 4,000 records that wait for an agent; at Faust's 4,096, a replay would hold millions of records in memory.
BUFFERED_BATCHES = 16
#: Open files that are no clients' connections: consumers, producers and logs, those to other workers, and of each partition two
#: stores of 64.
OTHER_FILES, PARTITION_FILES = 200 + MAX_CONNECTIONS, 128


def create_app(
    settings: Settings,
    bootstrap: str,
    judged: Places | None = None,
    until: Places | None = None,
    listeners: Listeners | None = None,
    forgotten: Erasures | None = None,
) -> HeadraceApp:
    """Build a worker's app for a broker at `bootstrap`; it starts nothing yet.

    Parameters
    ----------
    judged, until, forgotten : see `WorkerOptions`
    listeners : see `api.guard.WebServer`
    """
    limits = None if settings.rate_limit == 0 else RateLimits(settings.rate_limit, max(settings.rate_limit, 1.0))
    guard = guard_of(settings, limits)
    engine = Engine(
        engine_options(settings),
        origin=secrets.token_bytes(8),
    )
    folder = settings.state_dir / "faust"
    folder.mkdir(parents=True, exist_ok=True)
    servers = ";".join(f"headrace://{server.strip()}" for server in bootstrap.split(","))
    app = HeadraceApp(
        settings.group,
        broker=servers,
        broker_producer=servers.replace("headrace://", "kafka://"),
        broker_credentials=_credentials(bootstrap),
        store="memory://",
        datadir=folder,
        topic_partitions=settings.partitions,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_bind=settings.web_host,
        web_port=settings.web_port,
        # Of the group's other members each learns this, and which partitions are there (`agents.owners`).
        canonical_url=settings.peer_url,
        web_enabled=True,
        broker_session_timeout=SESSION_TIMEOUT_S,
        broker_heartbeat_interval=2.0,
        broker_max_poll_interval=60.0,
        broker_max_poll_records=4000,
        consumer_auto_offset_reset="earliest",
        # Faust's own pages show state and topology to anybody who asks.
        web_router_enabled=False,
        web_tables_enabled=False,
        web_graph_enabled=False,
        web_stats_enabled=False,
        web_metrics_enabled=False,
        stream_wait_empty=False,
        stream_buffer_maxsize=BUFFERED_BATCHES,
        stream_recovery_delay=0.0,
        table_standby_replicas=0,
        TableManager=TableManager,
    )
    app.setup(
        WorkerOptions(
            bootstrap=bootstrap,
            app=settings.app,
            version=settings.version,
            partitions=settings.partitions,
            folder=settings.state_dir,
            checkpoint_interval_ms=settings.checkpoint_interval_ms,
            future_tolerance_ms=int(settings.future_tolerance_s * 1000),
            judged=judged or {},
            until=until,
            forgotten=forgotten,
            # A version that is built serves nobody.
            scoring_share=settings.scoring_share if until is None else 0.0,
            # Of a version that is built there is none.
            start_from=_start_from(settings) if until is None else None,
            standby=settings.standby and until is None,
            serves_only=settings.role == "serve" and until is None,
        ),
        engine,
    )
    app.web = WebServer(app, guard, listeners)
    _mount_tables(app)
    for topic in app.shard_topics.inputs:
        _mount_agent(app, topic)
    if app.options.serves_only:
        # Faust's own word for an app that joins no group and reads nothing; it has a web server all the same.
        app.producer_only = True
        app.task(app.serve_only)
    app.task(app.keep_checkpointing)
    app.task(app.keep_indexing)
    app.task(app.keep_reading_lists)
    app.task(app.keep_judging_index)
    writer = LogWriter(bootstrap, settings.partitions)
    redis = _redis(settings)
    namespace = f"{settings.app}:{settings.version}"
    cache = ListCache(redis, namespace)
    peers = Peers()
    # Faust's own assignor has it; its interface does not name it.
    owners = Owners(lambda: cast("Any", app.assignor).external_topics_metadata(), specs.INTERACTIONS, settings.peer_url)
    app.owners = owners
    hop = Hop(owners, peers, settings.group)
    shared = Shared(writer, _presets(settings.scenarios), Listing(app, writer, cache, hop), hop)
    mount(app, shared, {**ROUTES, **BROWSE_ROUTES, **page_routes()})
    app.add_opener(cache.start)
    app.add_closer(cache.stop)
    app.add_opener(peers.start)
    app.add_closer(peers.stop)
    if redis is not None and limits is not None:
        exchange = SharedLimits(limits, redis, namespace)
        app.add_opener(exchange.start)
        app.add_closer(exchange.stop)
    if redis is not None:
        app.task(lambda: say_refusal(redis))
        app.add_closer(lambda: close_redis(redis))
    app.add_closer(writer.stop)
    app.add_opener(_start_tracing)
    app.add_closer(lambda: asyncio.to_thread(tracing.stop))
    return app


def engine_options(settings: Settings) -> EngineOptions:
    """What an engine is built with. Raises SettingsError."""
    return EngineOptions(
        partitions=settings.partitions,
        max_users=settings.max_users,
        max_videos=settings.max_videos,
        user_ttl_days=settings.user_ttl_days,
        video_ttl_days=settings.video_ttl_days,
        positives_per_day=settings.positives_per_day,
        seed=settings.seed,
        objective=_objective(settings),
        signals=_signals(settings.signals),
        exploration=settings.exploration,
        experiment=_experiment(settings.experiment),
    )


async def _start_tracing() -> None:
    tracing.start()


def guard_of(settings: Settings, limiter: Limiter | None = None) -> Guard:
    """What the worker's HTTP interface is guarded by. Raises SettingsError where it would be open to others."""
    for variable, host in (("HEADRACE_WEB_HOST", settings.web_host), ("HEADRACE_METRICS_HOST", settings.admin_host)):
        if settings.api_keys is None and not is_loopback(host):
            raise SettingsError(
                f"{variable}={host!r} can be reached by others, and no keys are asked for: name a file of keys in "
                f"HEADRACE_API_KEYS (`headrace keys create NAME --scope read` makes it), or set {variable}=127.0.0.1"
            )
    if settings.metrics_port == settings.web_port:
        raise SettingsError(
            f"HEADRACE_METRICS_PORT={settings.metrics_port} is HEADRACE_WEB_PORT: set it to another port"
        )
    try:
        keys = None if settings.api_keys is None else KeyRing(settings.api_keys)
    except BadKeys as error:
        raise SettingsError(f"HEADRACE_API_KEYS={str(settings.api_keys)!r}: {error}") from error
    try:
        cors = Cors.parse(settings.cors_origins, with_keys=keys is not None)
    except BadOrigins as error:
        raise SettingsError(f"HEADRACE_CORS_ORIGINS={settings.cors_origins!r}: {error}") from error
    return Guard(
        keys=keys,
        cors=cors,
        access_log=AccessLog(settings.access_log),
        limits=ConnectionLimits(most=_most_connections(settings)),
        limiter=limiter,
        metrics_open=settings.metrics_open,
        peers_only=settings.role == "learn",
        admin=None if settings.metrics_port is None else (settings.admin_host, settings.metrics_port),
    )


def _most_connections(settings: Settings) -> int:
    """As many as the settings say, or as open files leave room for."""
    others = OTHER_FILES + PARTITION_FILES * settings.partitions
    allowed = allow_open_files(settings.max_connections + others)
    most = min(settings.max_connections, max(allowed - others, allowed // 2))
    if most < settings.max_connections:
        log.warning("too few open files are allowed (ulimit -n) for HEADRACE_MAX_CONNECTIONS", connections=most)
    return most


def _start_from(settings: Settings) -> StartFrom | None:
    if settings.start_from is None:
        return None
    return StartFrom(settings.snapshots_url, settings.start_from, settings.app, settings.version, settings.partitions)


def _objective(settings: Settings) -> Objective:
    try:
        return Objective.parse(settings.objective)
    except BadObjective as error:
        raise SettingsError(f"HEADRACE_OBJECTIVE={settings.objective!r}: {error}") from error


def _signals(path: Path | None) -> SignalTable:
    if path is None:
        return DEFAULT_SIGNALS
    try:
        return SignalTable.parse(path.read_bytes())
    except (OSError, BadSignals) as error:
        raise SettingsError(f"HEADRACE_SIGNALS={str(path)!r}: {error}") from error


def _credentials(bootstrap: str) -> Credentials | None:
    """What Faust's own clients show to the brokers."""
    security = security_of(bootstrap)
    context = security.ssl_context()
    if security.authenticates:
        return SASLCredentials(
            username=security.username, password=security.password, ssl_context=context, mechanism=security.mechanism
        )
    return None if context is None else SSLCredentials(context)


def _redis(settings: Settings) -> Redis | None:
    if settings.redis_url is None:
        return None
    password = None if settings.redis_password is None else settings.redis_password.get_secret_value()
    try:
        return redis_client(settings.redis_url.get_secret_value(), password, settings.redis_ca_file)
    except ValueError as error:
        raise SettingsError(f"REDIS_URL: {error}") from error


def _experiment(path: Path | None) -> Experiment | None:
    if path is None:
        return None
    try:
        return experiment_file.parse(path.read_bytes())
    except (OSError, experiment_file.BadExperiment) as error:
        raise SettingsError(f"HEADRACE_EXPERIMENT={str(path)!r}: {error}") from error


def _presets(path: Path | None) -> Presets:
    if path is None:
        return {}
    try:
        return scenarios.parse(path.read_bytes())
    except (OSError, scenarios.BadScenarios) as error:
        raise SettingsError(f"HEADRACE_SCENARIOS={str(path)!r}: {error}") from error


def _mount_tables(app: HeadraceApp) -> None:
    shards = app.engine.shards
    stores: dict[str, Stores] = {
        "users": lambda: [shard.users_store for shard in shards.values()],
        "items": lambda: [shard.items_store for shard in shards.values()],
    }
    for name, opened in stores.items():
        table = ShardTable(app, name=name, partitions=app.options.partitions, key_type=bytes, value_type=bytes)
        table.stores = opened
        app.tables.add(table)


def _mount_agent(app: HeadraceApp, name: str) -> None:
    topic = app.topic(name, key_serializer="raw", value_serializer="raw")

    async def learn(stream: faust.StreamT[Any]) -> None:
        async for event in stream.events():
            try:
                await app.apply_all(name, _given(stream, event))
            except Exception as error:
                # What a record can cause is dealt with in the step: this is ours, or the broker's.
                await app.crash(error)
                raise

    app.agent(topic, name=f"headrace.{name}", concurrency=1)(learn)


def _given(stream: faust.StreamT[Any], event: faust.EventT[Any]) -> Iterator[Message]:
    """The event's message, and all that wait behind it: Faust lets the loop go round before each one that it hands over."""
    yield event.message
    queue = cast(Any, stream.channel).queue
    while not queue.empty():
        yield queue.get_nowait().message
