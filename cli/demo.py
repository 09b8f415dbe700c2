"""`headrace demo`: real logs through a real broker and a real worker, watched live.

What is counted comes from three sides that have to agree: what the demo's producers had confirmed, what the broker's
log holds, and what the worker says has become of it.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Annotated, Any, NoReturn

import orjson
import typer
from confluent_kafka import Consumer, TopicPartition
from rich.console import Console
from rich.live import Live

from cli.demo_machinery import DemoError, Worker, own_folder, own_worker
from cli.demo_probes import keep_counting, keep_probing, read_totals, show_like, start
from cli.demo_replay import MAX_LAG, Replay
from cli.demo_source import DemoSource, open_source
from cli.demo_status import Status
from cli.demo_view import Labels, line, panel, say_commands, say_like
from cli.worker_client import WorkerClient
from infra.embedded_kafka import EmbeddedKafka
from infra.logs import configure_logs
from infra.settings import Settings
from ingestion.client import Client, ServiceError
from ingestion.produce import produce_users, produce_videos
from topics.interactions import Interaction
from topics.specs import INTERACTIONS, ensure_topics, specs

LINE_EVERY_S = 5.0
LOOK_EVERY_S = 0.25
#: The worker may take this long for what waits, without any progress, before the counts are called wrong.
DRAIN_TIMEOUT_S = 60.0
#: The like is shown once there is something to recommend from, by events sent; a short log gets it at its end.
LIKE_AFTER_EVENTS = 20_000
DEMO_USER = "demo-viewer"


def demo(
    once: Annotated[bool, typer.Option("--once", help="End by itself; the last line is one JSON object.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Replay this many rows of the log.")] = None,
    speed: Annotated[
        float | None,
        typer.Option(min=0.001, help="Replay at this multiple of real time; by default as fast as the worker learns."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Go on with the state and log of the last demo.")] = False,
) -> None:
    """Replay a log of short-video views, and watch recommendations follow.

    Uses a broker and a worker of its own in HEADRACE_HOME/demo, which it empties first, and leaves everything else alone.
    """
    settings = Settings()
    configure_logs(settings.log_format, "warning")
    console = Console(highlight=False)
    _interrupt_on_signals()
    try:
        summary, wrong = _Demo(settings, console, once=once).run(limit, speed, keep=keep)
    except KeyboardInterrupt:
        console.print("Stopped: worker and broker have ended.")
        if once:
            raise
        return
    typer.echo(orjson.dumps(summary))
    if wrong:
        raise DemoError(wrong)


def _interrupt_on_signals() -> None:
    """Take Ctrl-C and SIGTERM alike; the second one kills."""

    def interrupt(_: int, __: FrameType | None) -> NoReturn:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_DFL)
        raise KeyboardInterrupt

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, interrupt)


@dataclass
class _Demo:
    settings: Settings
    console: Console
    once: bool

    def run(self, limit: int | None, speed: float | None, *, keep: bool) -> tuple[dict[str, Any], str]:
        """Run it all; returns the summary, and what is wrong with the counts, if anything is."""
        with ExitStack() as stack:
            folder = stack.enter_context(own_folder(self.settings.home, keep=keep))
            slate = "goes on where the last one ended" if keep else "begins with a clean slate"
            self.say(f"Headrace demo: {slate}, in {folder}")
            if self.settings.kafka_bootstrap_servers:
                self.say("KAFKA_BOOTSTRAP_SERVERS is left alone: the demo has a broker of its own")
            self.say("Starting Kafka (the first time it is fetched)")
            kafka = stack.enter_context(EmbeddedKafka(folder))
            ensure_topics(kafka.bootstrap, specs(self.settings.app, self.settings.version, self.settings.partitions))
            self.say(f"Kafka is up on {kafka.bootstrap}; starting the worker")
            worker = stack.enter_context(own_worker(self.settings, folder, kafka, self.say))
            source = open_source(self.settings.data, self.settings.seed, limit, int(time.time() * 1000))
            users = f" and what is known of {len(source.users):,} users" if source.users else ""
            self.say(
                f"Worker (process {worker.pid}) ready on {worker.url}; loading {len(source.videos):,} videos{users}"
            )
            self._load_catalogue(kafka, worker, source)
            self.say(f"Replaying {source.rows:,} rows of {source.about}; times are moved so that it ends now")
            return self._watch(kafka, worker, source, speed, stack)

    def say(self, text: str) -> None:
        """One line of news."""
        self.console.print(text, markup=False, soft_wrap=True)

    def _load_catalogue(self, kafka: EmbeddedKafka, worker: Worker, source: DemoSource) -> None:
        """Load the videos and wait until they can be recommended: freshness is not to measure this queue."""
        produce_videos(kafka.bootstrap, source.videos)
        produce_users(kafka.bootstrap, source.users)
        shown = sum(not video.hidden for _, video in source.videos)
        client = WorkerClient(worker.url)
        while client.gauge("headrace_videos") < shown:
            worker.check()
            kafka.check()
            time.sleep(0.1)
        client.close()

    def _watch(
        self,
        kafka: EmbeddedKafka,
        worker: Worker,
        source: DemoSource,
        speed: float | None,
        stack: ExitStack,
    ) -> tuple[dict[str, Any], str]:
        status = Status(at_ms=int(time.time() * 1000))
        client = Client(worker.url)
        status.baseline = status.totals = read_totals(WorkerClient(worker.url))
        logged_before = log_records(kafka.bootstrap, self.settings.partitions)
        stack.callback(status.stop.set)
        ids = [video_id for video_id, _ in source.videos]
        labels = Labels(dict(source.videos))
        replayed, probes_end = threading.Event(), threading.Event()
        last: dict[str, str] = {}

        def replay() -> None:
            try:
                done = Replay(kafka.bootstrap, WorkerClient(worker.url), status, speed).run(
                    _remember(source.events, last)
                )
                if done.records != status.replayed and not status.stop.is_set():
                    raise DemoError(f"{done.records:,} of {status.replayed:,} events confirmed")
            finally:
                replayed.set()

        start("count", lambda: keep_counting(WorkerClient(worker.url), status), status)
        prober = start(
            "probe",
            lambda: keep_probing(WorkerClient(worker.url), kafka.bootstrap, ids, status, probes_end),
            status,
        )
        start("replay", replay, status)

        def check() -> None:
            if status.failure is not None:
                raise status.failure
            worker.check()
            kafka.check()

        with _View(self.console, status, source, worker.url) as view:
            while not replayed.wait(LOOK_EVERY_S):
                check()
                if status.like is None and status.replayed >= LIKE_AFTER_EVENTS:
                    self._like(client, status, labels)
                    view.like()
                view.show()
            check()
            probes_end.set()
            prober.join()
            drained = _drain(status, check, view.show)
            status.ended = time.monotonic()
            if status.like is None:
                self._like(client, status, labels)
                view.like()
                drained = drained and _drain(status, check, view.show)
        logged = log_records(kafka.bootstrap, self.settings.partitions) - logged_before
        # Whoever tries the API meanwhile adds events: the log has them, and the worker counts them.
        _settle(status, logged, check)
        summary = _summary(source, logged, status)
        wrong = _wrong(status, logged, drained)
        self._tell(summary, status, logged, wrong)
        if not self.once and not wrong:
            # A video that many like: one that nobody else has watched would change no list.
            watched = client.trending(1).items
            video = watched[0].video_id if watched else ids[0]
            say_commands(self.console, worker.url, last.get("user", DEMO_USER), video)
            self.say("Ctrl-C ends the demo.")
            while True:
                check()
                time.sleep(LOOK_EVERY_S)
        return summary, wrong

    def _like(self, client: Client, status: Status, labels: Labels) -> None:
        with suppress(ServiceError):  # it is starting anew: later, then
            show_like(client, DEMO_USER, status, labels.of)

    def _tell(self, summary: dict[str, Any], status: Status, logged: int, wrong: str) -> None:
        outcomes = " + ".join(f"{summary[name]:,} {name}" for name in ("learned", "ignored", "duplicate", "dead"))
        self.say("")
        self.say(f"{summary['rows']:,} rows became {status.replayed:,} events, in {status.ended - status.began:.1f} s")
        self.say(
            f"  produced   {logged:,} records in Kafka's log: {status.replayed:,} replayed, {status.probed:,} of the "
            f"freshness probe, {status.liked:,} likes of {DEMO_USER}"
            + (f", {logged - status.sent():,} of others" if logged > status.sent() else "")
        )
        self.say(f"  handled    {outcomes} = {status.applied():,}" + ("" if wrong else ": it adds up"))
        self.say(
            f"  speed      {summary['events_per_s']:,.0f} events/s, paced by lag: at most {MAX_LAG} sent and not applied"
        )
        self.say(
            f"  freshness  {summary['freshness_p50_ms']} ms p50, {summary['freshness_p99_ms']} ms p99, from the producer's "
            f"send to the first answer that reflects it, n={len(status.freshness_ms)}"
        )
        n, served, trending = status.hit_rates()
        if n:
            self.say(
                f"  hit@10     {served:.4f} served, {trending:.4f} trending without what the user has seen; n={n} of the "
                "replay's positives, asked for just before each was sent: a sample, not `headrace evaluate`"
            )


class _View:
    """A live panel, or lines now and then."""

    def __init__(self, console: Console, status: Status, source: DemoSource, url: str) -> None:
        self._console, self._status, self._source, self._url = console, status, source, url
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._next_line = 0.0

    def __enter__(self) -> "_View":
        if self._live is not None:
            self._live.start()
        self.show()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self.show()
            self._live.stop()

    def show(self) -> None:
        """Bring it up to date."""
        expected = self._source.events_expected
        if self._live is not None:
            title = f"Headrace demo: {self._source.about}"
            self._live.update(panel(self._status, title, self._url, expected), refresh=True)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_EVERY_S
            self._console.print(line(self._status, expected), markup=False, soft_wrap=True)

    def like(self) -> None:
        """Show the like that was just made; the panel has it already."""
        if self._live is None and self._status.like is not None:
            say_like(self._console, self._status.like)


def _remember(events: Iterator[Interaction], last: dict[str, str]) -> Iterator[Interaction]:
    """Pass events on, keeping the last one's user as an example of a known one."""
    for event in events:
        last["user"] = event.user_id
        yield event


def _drain(status: Status, check: Callable[[], None], show: Callable[[], None]) -> bool:
    """Wait until the worker has dealt with everything sent; False if it makes no progress."""
    seen, since = -1, time.monotonic()
    while status.lag():
        check()
        show()
        if status.applied() != seen:
            seen, since = status.applied(), time.monotonic()
        if time.monotonic() - since > DRAIN_TIMEOUT_S:
            return False
        time.sleep(0.01)
    return True


def _settle(status: Status, logged: int, check: Callable[[], None]) -> None:
    deadline = time.monotonic() + DRAIN_TIMEOUT_S
    while status.applied() < logged and time.monotonic() < deadline:
        check()
        time.sleep(0.01)


def _summary(source: DemoSource, logged: int, status: Status) -> dict[str, Any]:
    outcomes = status.outcomes()
    p50, p99 = status.freshness(0.5), status.freshness(0.99)
    return {
        "source": source.name,
        "rows": source.rows,
        "produced": logged,
        **outcomes,
        "events_per_s": round(status.replayed / max(status.ended - status.began, 1e-9), 1),
        "freshness_p50_ms": None if p50 is None else round(p50, 1),
        "freshness_p99_ms": None if p99 is None else round(p99, 1),
    }


def _wrong(status: Status, logged: int, drained: bool) -> str:
    """What does not add up, in words; empty if all does."""
    if not drained:
        return f"the worker has made no progress for {DRAIN_TIMEOUT_S:.0f} s with {status.lag():,} events to go"
    if logged < status.sent():
        return f"{status.sent():,} events were confirmed and the log holds {logged:,}"
    if status.applied() != logged:
        return f"the log holds {logged:,} events and the worker has dealt with {status.applied():,}"
    return ""


def log_records(bootstrap: str, partitions: int) -> int:
    """Records ever appended to `interactions`, by its end offsets (its producers use no transactions)."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "headrace-demo", "enable.auto.commit": False})
    try:
        ends = [
            consumer.get_watermark_offsets(TopicPartition(INTERACTIONS, partition), timeout=20.0)
            for partition in range(partitions)
        ]
    finally:
        consumer.close()
    return sum(high for _, high in ends)
