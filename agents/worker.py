"""The composition root of a worker: Faust app, tables, agents and the API on one loop."""

import secrets
from pathlib import Path
from typing import Any

import faust

from agents.app import HeadraceApp, Places, WorkerOptions
from agents.table_store import Stores
from agents.tables import ShardTable, TableManager
from api import experiment_file, scenarios
from api.middleware import MAX_BODY_BYTES, problems
from api.producer import LogWriter
from api.requests import Presets
from api.views import mount
from infra.settings import Settings, SettingsError
from state.engine import Engine, EngineOptions
from state.experiment import Experiment
from state.objective import BadObjective, Objective
from topics.signals import DEFAULT_SIGNALS, BadSignals, SignalTable

#: Faust notices a dead worker after this; stock takes a minute.
SESSION_TIMEOUT_S = 10.0
#: Batches of up to 4,000 records that wait for an agent; at Faust's 4,096, a replay would hold millions of records in memory.
BUFFERED_BATCHES = 16


def create_app(
    settings: Settings, bootstrap: str, judged: Places | None = None, until: Places | None = None
) -> HeadraceApp:
    """Build a worker's app for a broker at `bootstrap`; it starts nothing yet. `judged` and `until`: see `WorkerOptions`."""
    engine = Engine(
        EngineOptions(
            partitions=settings.partitions,
            max_users=settings.max_users,
            max_videos=settings.max_videos,
            positives_per_day=settings.positives_per_day,
            seed=settings.seed,
            objective=_objective(settings),
            signals=_signals(settings.signals),
            exploration=settings.exploration,
            experiment=_experiment(settings.experiment),
        ),
        origin=secrets.token_bytes(8),
    )
    folder = settings.state_dir / "faust"
    folder.mkdir(parents=True, exist_ok=True)
    servers = ";".join(f"headrace://{server.strip()}" for server in bootstrap.split(","))
    app = HeadraceApp(
        settings.group,
        broker=servers,
        broker_producer=servers.replace("headrace://", "kafka://"),
        store="memory://",
        datadir=folder,
        topic_partitions=settings.partitions,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_bind=settings.web_host,
        web_port=settings.web_port,
        web_enabled=True,
        broker_session_timeout=SESSION_TIMEOUT_S,
        broker_heartbeat_interval=2.0,
        broker_max_poll_interval=60.0,
        broker_max_poll_records=4000,
        consumer_auto_offset_reset="earliest",
        web_application_options={"middlewares": [problems], "client_max_size": MAX_BODY_BYTES},
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
            # A version that is built serves nobody.
            scoring_share=settings.scoring_share if until is None else 0.0,
        ),
        engine,
    )
    _mount_tables(app)
    for topic in app.shard_topics.inputs:
        _mount_agent(app, topic)
    app.task(app.keep_checkpointing)
    app.task(app.keep_indexing)
    app.task(app.keep_reading_lists)
    writer = LogWriter(bootstrap, settings.partitions)
    mount(app, writer, _presets(settings.scenarios))
    app.add_closer(writer.stop)
    return app


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
                await app.apply(name, event.message.partition, event.message.value)
            except Exception as error:
                # What a record can cause is dealt with in the step: this is ours, or the broker's.
                await app.crash(error)
                raise

    app.agent(topic, name=f"headrace.{name}", concurrency=1)(learn)
