"""The Faust app: owns the engine, takes shards over and hands them on, and keeps the checkpoints coming.

Flows in: assignments from Faust, partition batches from the agents. Flows out: shards that learn, checkpoints, readiness.
Always holds: a shard is in `engine.shards` only while its producer is the one that the broker accepts.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import faust
import structlog
from faust.types import TP, Message

from agents import catalog, disk_metrics, experiment_metrics, feedback, items, ranking, scoring_metrics, users
from agents.checkpoint import ShardTopics, ShardWriter
from agents.copies import Copies
from agents.followers import Followers, Rows
from agents.owners import Owners
from agents.scoring import Scorer
from agents.snapshot_start import StartFrom
from agents.standbys import Standbys
from agents.takeover import changelog_consumer, take_over
from agents.turn import Turn
from infra import metrics, tracing
from online_models.heads import HEADS
from state.engine import Engine
from state.index import EXACT_BELOW
from state.index_recall import IndexRecall
from state.shard import Shard
from topics import specs
from topics.erasures import Erasures
from topics.record_batch import RecordBatch, RecordLike

log = structlog.get_logger(__name__)

#: Records learned at once, ten milliseconds or so; of evidence one block, which may be as much.
CHUNK = 1000
#: While lists are asked for: three milliseconds or so, for which an answer waits; half as much again an event.
CHUNK_ASKED = 250
#: Lists count as asked for until so long after the last one.
ASKED_S = 1.0
#: A revoked shard has this long for its last checkpoint; then another worker may own it.
REVOKE_TIMEOUT_S = 5.0
#: Evidence buffered a shard before a checkpoint is made early: it bounds memory and the size of a transaction.
PENDING_BYTES = 8_000_000
#: Checkpoints of all shards may take this share of the time while records wait: after a long one, the next waits longer.
CHECKPOINT_SHARE = 0.1
#: Work on the graph index a turn, in a thread, and the pause after it: an eighth of one core at most.
INDEX_BUDGET_S = 0.01
INDEX_PAUSE_S = 0.07
#: Lists read at once, some milliseconds; lists of a shard that wait for its events, 2 KB each; and between two looks at them.
LISTS_AT_ONCE = 100
HELD_LISTS = 4_000
LISTS_PAUSE_S = 0.02
#: Between two looks whether copies of all shards are here.
COPIES_PAUSE_S = 0.05
#: Between two looks at what the index misses: each holds the loop for as long as a list takes.
INDEX_SAMPLE_PAUSE_S = 2.0
#: Topics that all versions read, and must have read when one takes over from another.
_SHARED = frozenset({specs.INTERACTIONS, specs.VIDEOS, specs.USERS})
#: Topics that are metric labels under their own name; the evidence topic's name has the version in it.
_NAMED = _SHARED | {specs.RECOMMENDATIONS}


#: Next offset by partition of each input that all versions share.
Places = Mapping[str, Mapping[int, int]]


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker is told.

    Attributes
    ----------
    folder : holds its stores
    judged : places up to which another version has read: dead letters of records below them are written already
    until : places at which it stops reading, for a version that is built; one that is missing is 0. None reads on
    forgotten : who had been erased before a version is built; None: nobody is known to
    scoring_share : of the worker's CPU time, for ranking positives before they are learned
    start_from : snapshot that an empty store is filled from; None: it is read from its changelog
    standby : whether it keeps copies of the shards that others own
    serves_only : it owns no shard, and answers from copies of all
    """

    bootstrap: str
    app: str
    version: str
    partitions: int
    folder: Path
    checkpoint_interval_ms: int
    future_tolerance_ms: int
    judged: Places = field(default_factory=dict)
    until: Places | None = None
    forgotten: Erasures | None = None
    scoring_share: float = 0.0
    start_from: StartFrom | None = None
    standby: bool = False
    serves_only: bool = False


class HeadraceApp(faust.App):
    """A Faust app with an engine. Build it with `agents.worker.create_app`."""

    owners: Owners

    def setup(self, options: WorkerOptions, engine: Engine) -> None:
        """Give the app what its shards need; before it starts."""
        self.options = options
        self.engine = engine
        self.scorer = Scorer(options.scoring_share, engine.options.seed)
        self.index_recall = IndexRecall(engine.options.seed)
        self.shard_topics = ShardTopics.of(options.app, options.version)
        self.writers: dict[int, ShardWriter] = {}
        self.followers = Followers(
            lambda: changelog_consumer(options.bootstrap),
            self.shard_topics.items_changelog,
            self._take_foreign,
            lambda error: asyncio.ensure_future(self.crash(error)),
        )
        self.standbys = Standbys(
            options.bootstrap,
            self.shard_topics,
            options.folder,
            lambda: changelog_consumer(options.bootstrap),
            Copies(engine, self._standby_failed, keeps_clock=options.serves_only),
        )
        self.ready = False
        self.started_once = False
        self._arrived_ms: dict[int, int] = {}
        #: When a list was last asked for, in monotonic seconds.
        self.asked_at = float("-inf")
        self._turns = {topic: Turn() for topic in self.shard_topics.inputs}
        self.failure: BaseException | None = None
        self._openers: list[Callable[[], Awaitable[None]]] = []
        self._closers: list[Callable[[], Awaitable[None]]] = []
        #: When a shard's next checkpoint may be, and when it must be, in monotonic seconds.
        self._next_checkpoint: dict[int, tuple[float, float]] = {}
        self.on_partitions_revoked.connect(self._revoke)  # type: ignore[arg-type] # called as (app, revoked)

    async def crash(self, reason: BaseException) -> None:
        """Stop the worker; the reason is kept for whoever started it."""
        if self.failure is None:
            self.failure = reason
            log.error("the worker stops", reason=f"{type(reason).__name__}: {reason}")
        for writer in self.writers.values():
            writer.give_up(reason if isinstance(reason, Exception) else RuntimeError(str(reason)))
        self.ready = False
        await super().crash(reason)

    def cut_positions(self) -> dict[TP, int]:
        """Where each input of the owned shards goes on."""
        return {
            TP(topic, partition): shard.goes_on_at(topic, self.shard_topics.evidence)
            for partition, shard in self.engine.shards.items()
            for topic in self.shard_topics.inputs
        }

    async def take_over(self, partitions: set[int]) -> None:
        """Own exactly `partitions`."""
        for partition in set(self.engine.shards) - partitions:
            await self._release(partition)
        began = time.perf_counter()
        fresh = sorted(partitions - set(self.engine.shards))
        self.engine.remove_standbys(fresh)
        await self.standbys.let_go(fresh)
        owned = await asyncio.gather(
            *(
                take_over(
                    self.options.bootstrap, self.shard_topics, partition, self.options.folder, self.options.start_from
                )
                for partition in fresh
            )
        )
        if fresh:
            # These shards' rows start from what their owner has applied: steps of ours that are still under way come in like
            # anybody's, so they must not look like ours.
            self.engine.origin = secrets.token_bytes(8)
            self.engine.awaited = 0
        for partition, (writer, shard) in zip(fresh, owned, strict=True):
            self.writers[partition] = writer
            shard.judged = {topic: places.get(partition, 0) for topic, places in self.options.judged.items()}
            shard.forgotten = self.options.forgotten
            self.engine.add_shard(shard)
            self.engine.replica.serve_base(partition)
        foreign = set(range(self.options.partitions)) - partitions
        copied = foreign if self.options.standby else set()
        self.followers.follow(foreign - copied)
        self.standbys.follow(copied)
        self.ready = self.started_once = True
        took = time.perf_counter() - began
        if fresh:
            metrics.RESTORE_SECONDS.observe(took)
        log.info("shards owned", shards=sorted(self.engine.shards), seconds=round(took, 2))

    def _take_foreign(self, partition: int, rows: Rows) -> None:
        """Rows of videos that another worker owns."""
        if partition not in self.engine.shards:
            self.engine.take_rows(rows)

    async def _revoke(self, _app: Any, *revoked: set[TP], **_: Any) -> None:
        """Faust takes all partitions at every rebalance; give each a last checkpoint, and let go."""
        self.ready = False
        # Together: the time to do it in is for all of them.
        await asyncio.gather(
            *(self._release(partition) for partition in {tp.partition for tps in revoked for tp in tps})
        )

    async def _release(self, partition: int) -> None:
        shard, writer = self.engine.shards.get(partition), self.writers.pop(partition, None)
        if shard is None or writer is None:
            return
        # What was learned while the last checkpoint is written would stay in the videos' rows, and be learned again.
        shard.leaving = True
        try:
            if self.failure is None:
                await asyncio.wait_for(writer.checkpoint(self.engine, shard), REVOKE_TIMEOUT_S)
        finally:
            self.engine.remove_shard(partition)
            await writer.stop()

    async def on_stop(self) -> None:
        """Give every shard a last checkpoint and let go of it, before the consumer leaves the group."""
        self.ready = False
        await asyncio.gather(*(self._release(partition) for partition in list(self.engine.shards)))
        await self.followers.stop()
        self.engine.remove_standbys(set(self.engine.standbys))
        await self.standbys.stop()
        await super().on_stop()
        for close in self._closers:
            await close()

    async def on_start(self) -> None:
        """Start what is mounted on it."""
        for start in self._openers:
            await start()
        await super().on_start()

    async def serve_only(self) -> None:
        """Copy all shards, and be ready once all are here; for a worker that learns nothing."""
        every = set(range(self.options.partitions))
        began = time.perf_counter()
        self.standbys.follow(every)
        while not self.should_stop and self.failure is None:
            copies = self.engine.standbys
            if copies.keys() == every and all(standby.caught_up for standby in copies.values()):
                self.ready = self.started_once = True
                log.info("copies of all shards are here", seconds=round(time.perf_counter() - began, 2))
                return
            await asyncio.sleep(COPIES_PAUSE_S)

    def _standby_failed(self, error: Exception) -> None:
        """Copies stand still: of a worker that has nothing else, the end."""
        if self.options.serves_only:
            self._crashing = asyncio.ensure_future(self.crash(error))
            return
        log.error("copies of other workers' shards stand still", why=f"{type(error).__name__}: {error}")
        self.engine.remove_standbys(set(self.engine.standbys))

    def add_opener(self, start: Callable[[], Awaitable[None]]) -> None:
        """Have `start` called when the worker starts; for what is mounted on it."""
        self._openers.append(start)

    def add_closer(self, close: Callable[[], Awaitable[None]]) -> None:
        """Have `close` called when the worker stops; for what is mounted on it."""
        self._closers.append(close)

    async def apply_all(self, topic: str, messages: Iterable[Message]) -> None:
        """Let shards learn what the topic's agent was given; what was fetched under an older assignment is dropped, as Faust does."""
        self._turns[topic].begin()
        for message in messages:
            if message.generation_id == self.consumer_generation_id and self.flow_control.is_active():
                await self.apply(topic, message.partition, cast(Any, message.value))

    async def apply(self, topic: str, partition: int, records: Sequence[RecordLike]) -> None:
        """Let the shard learn a partition batch, a chunk at a time; a batch of a shard that has left is dropped."""
        if topic == specs.RECOMMENDATIONS:
            await self.hold_lists(partition, records)
            return
        step = self._step(topic)
        shard = self.engine.shards.get(partition)
        until = self.until(topic, partition)
        records = RecordBatch.of(records)
        if topic == specs.INTERACTIONS and len(records):
            metrics.EVENT_DELAY_SECONDS.labels("fetched").observe(_age_s(records[-1].timestamp))
        ended = until is not None and records[-1].offset >= until
        if until is not None:
            records = records.before(until)
        users_held = self.engine.users
        first, turn = 0, self._turns[topic]
        while first < len(records):
            asked = time.monotonic() - self.asked_at < ASKED_S
            most = min(CHUNK_ASKED if asked else CHUNK, users_held.capacity)
            chunk = 1 if topic == self.shard_topics.evidence else most
            if topic == specs.INTERACTIONS and shard is not None:
                chunk = self.scorer.batch_of(ranking.batch_of(self.engine, shard, most))
            while topic == specs.INTERACTIONS and users_held.pinned + chunk > users_held.capacity and self._owns(shard):
                # Every slot waits for a checkpoint: wait too, or the events of whoever comes next would be refused.
                await asyncio.gather(*(self.checkpoint(each) for each in list(self.engine.shards)))
            if topic == specs.INTERACTIONS and shard is not None:
                await self._read_lists_until(shard, records[first].timestamp)
            if shard is None or not self._owns(shard):
                return
            agent, began_ns = topic if topic in _NAMED else "evidence", time.time_ns()
            with metrics.STEP_SECONDS.labels(agent).time():
                step(shard, records[first : first + chunk])
            if tracing.spans is not None:
                count = min(chunk, len(records) - first)
                tracing.spans.done(f"learn {agent}", began_ns, {"headrace.shard": partition, "headrace.records": count})
            if shard.pending.size_bytes > PENDING_BYTES:
                await self.checkpoint(partition)
            first, late_s = min(first + chunk, len(records)), 0.0
            if topic == specs.INTERACTIONS:
                self._arrived_ms[partition] = records[first - 1].timestamp
                late_s = _age_s(records[first - 1].timestamp)
                metrics.EVENT_DELAY_SECONDS.labels("learned").observe(late_s)
                self.scorer.look_at(late_s)
                await self._read_lists_until(shard, 0)
            await turn.pause(late_s)
        if until is not None and ended and shard is not None and self._owns(shard) and shard.next.get(topic, 0) < until:
            shard.advance(topic, until - 1)  # what is missing below is compacted away

    def _has_all(self, partition: int) -> bool:
        """Whether all interactions of the shard that are in the log, as far as is known, are applied."""
        where = TP(specs.INTERACTIONS, partition)
        if where not in self.consumer.assignment():
            return False
        end = self.consumer.highwater(where)
        return end is not None and self.engine.shards[partition].next.get(specs.INTERACTIONS, 0) >= end

    async def hold_lists(self, partition: int, records: Sequence[RecordLike]) -> None:
        """Take lists of a shard, and read them as far as its events have come; the others are read as events come."""
        shard = self.engine.shards.get(partition)
        if shard is None or not self._owns(shard):
            return
        shard.held_lists.add(RecordBatch.of(records))
        while self._owns(shard):
            if not self._read_lists(shard):
                if len(shard.held_lists) <= HELD_LISTS:
                    return
                await asyncio.sleep(LISTS_PAUSE_S)
            await asyncio.sleep(0)

    def _read_lists(self, shard: Shard, until_ms: int = 0) -> bool:
        """Read some of the lists that the shard holds, if all events that arrived before them are applied; whether there were any.

        Parameters
        ----------
        until_ms : all events that arrived before are applied, where that is known to whoever calls
        """
        if not len(shard.held_lists) or not self._owns(shard):
            return False
        everything = self._has_all(shard.partition)
        lists = shard.held_lists.take(None if everything else max(shard.arrived_ms, until_ms), LISTS_AT_ONCE)
        if lists is None:
            return False
        if everything:
            # Nothing that arrived before is waiting: the shard has come as far as these lists.
            shard.arrived_ms = max(shard.arrived_ms, lists[-1].timestamp)
        with metrics.STEP_SECONDS.labels(specs.RECOMMENDATIONS).time():
            feedback.step(self.engine, shard, specs.RECOMMENDATIONS, lists)
        return True

    async def _read_lists_until(self, shard: Shard, until_ms: int) -> None:
        """Read the lists that the shard holds and that arrived by then: all events of before are applied."""
        while True:
            if not self._read_lists(shard, until_ms):
                return
            await asyncio.sleep(0)

    async def keep_reading_lists(self) -> None:
        """Read held lists once nothing before them is waiting, also where no more events come."""
        while not self.should_stop and self.failure is None:
            try:
                read = [self._read_lists(shard) for shard in list(self.engine.shards.values())]
            except Exception as error:
                await self.crash(error)
                raise
            await asyncio.sleep(0.0 if any(read) else LISTS_PAUSE_S)

    def until(self, topic: str, partition: int) -> int | None:
        """Where a version that is built stops reading an input; None: it reads on."""
        if self.options.until is None or topic not in _SHARED:
            return None
        return self.options.until.get(topic, {}).get(partition, 0)

    def _owns(self, shard: Shard | None) -> bool:
        return shard is not None and not shard.leaving and self.engine.shards.get(shard.partition) is shard

    def as_of_ms(self, partition: int | None, now_ms: int) -> int:
        """When the state was current: now, if nothing known waits to be applied, else the arrival of the latest one applied.

        `partition` None asks for the oldest of all owned shards; of one that serves only, of all copies.
        """
        standbys = self.engine.standbys
        if partition in standbys:
            return standbys[partition].as_of_ms
        if partition is None and self.options.serves_only:
            return min((standby.as_of_ms for standby in standbys.values()), default=0)
        arrived = self._arrived_ms
        # `now_ms` is this machine's clock, arrivals are the broker's: one that was set back is not before what is applied.
        times = [
            max(now_ms, arrived.get(shard, 0)) if self.behind(specs.INTERACTIONS, shard) == 0 else arrived.get(shard, 0)
            for shard in (self.engine.shards if partition is None else [partition])
            if shard in self.engine.shards
        ]
        return min(times, default=0)

    def applied(self, partition: int) -> int:
        """Next offset of the interactions of a shard that is here, owned or as a copy; 0 for another."""
        holder = self.engine.holder(partition)
        return 0 if holder is None else holder.next.get(specs.INTERACTIONS, 0)

    def _step(self, topic: str) -> Callable[[Shard, RecordBatch], None]:
        if topic == specs.INTERACTIONS:
            return lambda shard, records: users.step(
                self.engine, shard, records, self.options.future_tolerance_ms, self.scorer
            )
        if topic == self.shard_topics.evidence:
            return lambda shard, records: items.step(self.engine, shard, topic, records)
        return lambda shard, records: catalog.step(self.engine, shard, topic, records)

    async def checkpoint(self, partition: int) -> None:
        """Make the shard's state durable now; an error stops the worker."""
        shard, writer = self.engine.shards.get(partition), self.writers.get(partition)
        if shard is None or writer is None:
            return
        worked_s = await writer.checkpoint(self.engine, shard)
        interval = self.options.checkpoint_interval_ms / 1000
        now = time.monotonic()
        share = CHECKPOINT_SHARE / max(1, len(self.engine.shards))
        self._next_checkpoint[partition] = (now + interval, now + max(interval, worked_s / share))

    def _due(self, partition: int) -> bool:
        """Whether it is time for the shard's next checkpoint; while records wait to be learned, they come first."""
        earliest, latest = self._next_checkpoint.get(partition, (0.0, 0.0))
        now = time.monotonic()
        return now >= latest or (now >= earliest and self.behind(specs.INTERACTIONS, partition) == 0)

    async def keep_checkpointing(self) -> None:
        """Checkpoint each shard when it is due, for as long as the app runs.

        One begins at a time: each holds the loop while it copies its rows, and together they would hold it for long.
        """
        running: dict[int, asyncio.Task[None]] = {}
        while not self.should_stop and self.failure is None:
            for partition, task in list(running.items()):
                if task.done():
                    del running[partition]
                    if (error := task.exception()) is not None:
                        # Any error of a checkpoint means the same.
                        await self.crash(error)
                        return
            due = [partition for partition in self.engine.shards if partition not in running and self._due(partition)]
            if due:
                first = min(due, key=lambda partition: self._next_checkpoint.get(partition, (0.0, 0.0)))
                running[first] = asyncio.create_task(self.checkpoint(first))
            await asyncio.sleep(0.01)

    async def keep_indexing(self) -> None:
        """Keep the graph index near the current factors, in a thread and within its budget, once there is use for it."""
        engine = self.engine
        while not self.should_stop and self.failure is None:
            if len(engine.replica) > EXACT_BELOW:
                columns = engine.mf.columns
                await asyncio.to_thread(engine.index.refresh, columns["q"], columns["b"], INDEX_BUDGET_S)
            await asyncio.sleep(INDEX_PAUSE_S)

    async def keep_judging_index(self) -> None:
        """Compare a list of the graph index with the exact one now and then, once there is a graph."""
        while not self.should_stop and self.failure is None:
            self.index_recall.sample(self.engine)
            await asyncio.sleep(INDEX_SAMPLE_PAUSE_S)

    def publish_metrics(self) -> None:
        """Bring the gauges up to date; called when they are scraped."""
        engine = self.engine
        totals = engine.totals()
        for outcome in ("learned", "ignored", "duplicate", "dead"):
            metrics.EVENTS.labels(outcome).set(totals.get(outcome, 0))
        for name, count in totals.items():
            if name.startswith("dead."):
                metrics.DEAD.labels(name.removeprefix("dead.")).set(count)
        for topic in self.shard_topics.inputs:
            metrics.LAG.labels(topic if topic in _NAMED else "evidence").set(self.lag(topic))
        now_ms = int(time.time() * 1000)
        as_of_ms = self.as_of_ms(None, now_ms)
        # Before anything was applied while much waits, nobody knows.
        metrics.STATE_AGE.set(max(0, now_ms - as_of_ms) / 1000 if as_of_ms else float("nan"))
        for outcome in ("learned", "refused", "no_candidate"):
            metrics.LESSONS.labels(outcome).set(engine.lessons[outcome])
        metrics.REFUSED_PARTS.set(engine.ranker.refused)
        for outcome in ("learned", "refused", "late", "lost", "listed", "unanswered", "unreadable"):
            metrics.EXPOSURES.labels(outcome).set(engine.exposures[outcome])
        metrics.EXPOSURES_WAITING.set(sum(len(shard.exposures) for shard in engine.shards.values()))
        for head, mean in zip(HEADS, engine.heads.means.tolist(), strict=True):
            metrics.HEAD_RATE.labels(head).set(mean)
        if engine.tally is not None:
            experiment_metrics.publish(engine.tally, engine.shards)
        disk_metrics.publish(engine.shards.values(), self.options.folder)
        metrics.SHARDS.set(len(engine.shards))
        metrics.STANDBY_SHARDS.set(len(engine.standbys))
        copied_ms = min((standby.as_of_ms for standby in engine.standbys.values()), default=0)
        metrics.STANDBY_AGE.set(max(0, now_ms - copied_ms) / 1000 if copied_ms else float("nan"))
        metrics.USERS.set(len(engine.users))
        active = int(engine.replica.active.sum())
        metrics.VIDEOS.set(active)
        scoring_metrics.publish(self.scorer.figures(active))
        metrics.INDEX_ROWS.set(len(engine.index))
        metrics.INDEX_WAITING.set(engine.index.waiting)
        metrics.INDEX_RECALL.set(self.index_recall.mean)

    def lag(self, topic: str) -> int:
        """Records of the owned shards in `topic` that are fetched or known and not applied."""
        return sum(self.behind(topic, partition) for partition in self.engine.shards)

    def behind(self, topic: str, partition: int) -> int:
        """Records of one shard's input, as far as it was fetched, that are not applied."""
        end = self.monitor.tp_end_offsets.get(TP(topic, partition)) or 0
        return max(0, end - self.engine.shards[partition].next.get(topic, 0))


def _age_s(timestamp_ms: int) -> float:
    """Since a record's arrival; a broker's clock that is ahead counts as now."""
    return max(0.0, time.time() - timestamp_ms / 1000)
