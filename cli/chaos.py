"""`headrace chaos`: break a broker and workers of its own while events arrive, then hold what they have learned against a recount.

What was acknowledged, what the log holds and what was committed have to agree to the last event. Nothing of the operator's is
touched: the broker and the workers live in a temporary folder, which is removed unless something differs.
"""

import logging
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import orjson
import typer

from cli.chaos_faults import ChaosFailed, Faults, plan
from cli.chaos_view import View
from cli.worker_process import HOST, WorkerEnded, WorkerProcess, handled
from infra.embedded_kafka import BrokerError, EmbeddedKafka
from infra.kafka_probe import free_port
from infra.logs import configure_logs

APP, VERSION, PARTITIONS = "chaos", "v1", 4
#: A day of events passes in 20 s: links fade by tens of half-lives, and rows are rescaled on the way.
POSITIVES_PER_DAY = 300_000.0
FUTURE_TOLERANCE_S = 600
#: Fewer slots than users: they are evicted and read back all the time.
SETTINGS = {
    "app": APP,
    "version": VERSION,
    "partitions": PARTITIONS,
    "max_users": 250,
    "positives_per_day": POSITIVES_PER_DAY,
    "future_tolerance_s": FUTURE_TOLERANCE_S,
}
#: Small segments and an eager cleaner: changelogs are compacted during the run, and workers restore from what is left.
COMPACTED = {"segment.bytes": str(4 << 20), "min.cleanable.dirty.ratio": "0.05"}
SHOWN_DIFFERENCES = 20


def chaos(
    minutes: Annotated[
        float, typer.Option(min=0.1, help="For how long things go wrong; checking takes about as long.")
    ],
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of events, faults and moments; drawn and printed if not given.")
    ] = None,
) -> None:
    """Kill, stop, pause and wipe workers and their broker while events arrive, then recount every event.

    Ends with status 1 on any difference. The last line is one JSON object. Uses a broker, workers and a folder of its own.
    """
    configure_logs("console", "error")
    # A broker that is killed on purpose is no news.
    logging.getLogger("ingestion.produce").setLevel(logging.CRITICAL)
    _interrupt_on_signals()
    summary, problems = _Run(minutes * 60, random.SystemRandom().randrange(2**31) if seed is None else seed).run()
    for problem in problems[:SHOWN_DIFFERENCES]:
        typer.echo(problem)
    if len(problems) > SHOWN_DIFFERENCES:
        typer.echo(f"and {len(problems) - SHOWN_DIFFERENCES} more")
    typer.echo(orjson.dumps(summary))
    if problems:
        raise typer.Exit(1)


def _interrupt_on_signals() -> None:
    """Take Ctrl-C and SIGTERM alike; the second one kills."""

    def interrupt(_: int, __: FrameType | None) -> NoReturn:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_DFL)
        raise KeyboardInterrupt

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, interrupt)


@dataclass
class _Run:
    seconds: float
    seed: int
    restarts: int = 0
    summary: dict[str, Any] = field(default_factory=dict)

    def run(self) -> tuple[dict[str, Any], list[str]]:
        """Run it all; returns the summary and what is wrong, in words."""
        from cli.chaos_load import Load

        began = time.monotonic()
        with ExitStack() as stack:
            keep: list[Path] = []
            home = stack.enter_context(_temporary_home(keep))
            self.kafka = stack.enter_context(_broker(home))
            self.workers = [
                WorkerProcess(name, self.kafka.bootstrap, home / name, port=None, **SETTINGS) for name in ("a", "b")
            ]
            for worker in self.workers:
                stack.callback(worker.close)
            self.load = Load(self.kafka.bootstrap, PARTITIONS, self.seed)
            stack.callback(self.load.abandon)
            self.view = stack.enter_context(View(self._state))
            self.faults = Faults(self.kafka, self.workers, PARTITIONS, self.view.tell, self._look)
            try:
                problems = self._break_and_compare()
            except (ChaosFailed, WorkerEnded, BrokerError) as error:
                problems = [str(error)]
                self.summary["failure"] = str(error).splitlines()[0]
            self.restarts = sum(worker.restarts for worker in self.workers)
            if problems:
                keep.append(home)
        done = self.faults.done
        counts = {
            "seed": self.seed,
            "seconds": round(time.monotonic() - began, 1),
            "kills": done["kill"],
            "broker_restarts": done["broker"],
            "zombies": done["zombie"],
            "disk_losses": done["disk"],
            "restarts": self.restarts,
        }
        return counts | self.summary, problems

    def _break_and_compare(self) -> list[str]:
        draw = random.Random(f"{self.seed} faults")
        first, rest = plan(draw, self.seconds)
        self.view.tell(f"seed {self.seed}, {self.seconds:.0f} s; in any case: {', '.join(f.kind for f in first)}")
        self._create_topics()
        self.load.start()
        self.workers[0].start()
        until = time.monotonic() + self.seconds
        for fault in first:
            self.faults.strike(fault)
        while time.monotonic() < until:
            self.faults.strike(next(rest))
        self.view.tell(f"the producers stop; done: {dict(self.faults.done)}")
        self.load.stop(self._look)
        return self._compare()

    def _compare(self) -> list[str]:
        from cli.chaos_compare import Comparison
        from cli.chaos_verify import LoggedEvents

        log = LoggedEvents(PARTITIONS, POSITIVES_PER_DAY, FUTURE_TOLERANCE_S * 1000)
        with Comparison(self.kafka.bootstrap, APP, VERSION, log, PARTITIONS) as comparison:
            compared = comparison.run(self.load, self.faults, self.workers, self.view.tell, self._look)
        differences = compared.verdict.differences
        self.summary = compared.counts | {"differences": len(differences)}
        return differences

    def _create_topics(self) -> None:
        from dataclasses import replace

        from topics.specs import ensure_topics, specs

        topics = specs(APP, VERSION, PARTITIONS)
        ensure_topics(
            self.kafka.bootstrap,
            [replace(t, config=t.config | (COMPACTED if t.name.endswith("-changelog") else {})) for t in topics],
        )

    def _state(self) -> str:
        applied = sum(handled(answer["totals"]) for worker in self.workers if (answer := worker.ready()))
        acknowledged = self.load.acknowledged_records
        done = self.faults.done
        return (
            f"{acknowledged:,} events, lag {max(0, acknowledged - applied):,}, {done['kill']} kills, "
            f"{done['broker']} broker restarts, {done['zombie']} zombies, {done['disk']} disks lost |"
        )

    def _look(self, doing: str) -> None:
        if self.load.failure is not None:
            raise ChaosFailed(f"a producer failed: {self.load.failure!r}")
        self.view.show(doing)


@contextmanager
def _temporary_home(keep: list[Path]) -> Iterator[Path]:
    """A folder that is removed afterwards unless it is in `keep`, because there is something to look into."""
    home = Path(tempfile.mkdtemp(prefix="headrace-chaos-"))
    try:
        yield home
    finally:
        if home in keep:
            typer.echo(f"logs and state are kept in {home}", err=True)
        else:
            shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _broker(home: Path) -> Iterator[EmbeddedKafka]:
    """A broker that keeps its port through restarts."""
    kafka = EmbeddedKafka(home, port=free_port(HOST))
    kafka.start()
    try:
        yield kafka
    finally:
        kafka.kill()
