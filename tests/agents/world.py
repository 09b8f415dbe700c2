"""A small Kafka of lists, and an engine that reads it: agents and checkpoints with no broker, step by step."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from agents import catalog, expiry, feedback, items, users
from agents.scoring import Scorer
from state.engine import Engine, EngineOptions
from state.exploration import EXPLORATION
from state.rows import CUT_KEY, Cut, decode_cut
from state.shard import Checkpoint, Shard
from state.store import MemoryStore
from topics.canonical_order import CATALOGUE, CanonicalOrder, Stream, event_stream
from topics.catalog import User, Video, encode
from topics.dead_letter import DeadLetter
from topics.interactions import EVENTS, Interaction
from topics.interactions import encode as encode_event
from topics.partitions import partition_of
from topics.record_batch import RecordBatch
from topics.specs import INTERACTIONS, RECOMMENDATIONS, USERS, VIDEOS

EVIDENCE = "evidence"
NOW_MS = 1_700_000_000_000
TOLERANCE_MS = 600_000


@dataclass
class Record:
    key: bytes | None
    value: bytes | None
    offset: int
    timestamp: int = NOW_MS


@dataclass
class World:
    """Logs and stores outlive `restart`; the engine is what a process loses."""

    options: EngineOptions
    logs: dict[tuple[str, int], list[Record]] = field(default_factory=dict)
    stores: dict[int, tuple[MemoryStore, MemoryStore]] = field(default_factory=dict)
    dead: list[DeadLetter] = field(default_factory=list)
    processes: int = 0
    scorer: Scorer | None = None
    #: The broker's clock, for what is appended next.
    arrival_ms: int = NOW_MS

    def __post_init__(self) -> None:
        self.restart()

    @property
    def partitions(self) -> range:
        return range(self.options.partitions)

    def restart(self) -> None:
        """Forget everything that is not in a store: kill -9, and start again."""
        self.processes += 1
        self.engine = Engine(self.options, f"process {self.processes}".encode())
        for partition in self.partitions:
            stores = self.stores.setdefault(partition, (MemoryStore(), MemoryStore()))
            data = stores[0].get(CUT_KEY)
            self.engine.add_shard(Shard(partition, *stores, Cut({}) if data is None else decode_cut(data)))

    def partition_of(self, name: str) -> int:
        return partition_of(name.encode(), self.options.partitions)

    def log(self, topic: str, partition: int) -> list[Record]:
        return self.logs.setdefault((topic, partition), [])

    def append(self, topic: str, partition: int, key: bytes | None, value: bytes | None) -> None:
        log = self.log(topic, partition)
        # Offsets have gaps in a real log, where markers and compacted records were.
        log.append(Record(key, value, log[-1].offset + 1 + len(log) % 2 if log else 3, self.arrival_ms))

    def send(self, *events: Interaction) -> None:
        for event in events:
            key = event.user_id.encode()
            self.append(INTERACTIONS, self.partition_of(event.user_id), key, encode_event(event))

    def put(self, video_id: str, video: Video | None) -> None:
        self.append(VIDEOS, self.partition_of(video_id), video_id.encode(), None if video is None else encode(video))

    def describe(self, user_id: str, user: User | None) -> None:
        self.append(USERS, self.partition_of(user_id), user_id.encode(), None if user is None else encode(user))

    def due(self, topic: str, partition: int) -> Sequence[Record]:
        first = self.engine.shards[partition].goes_on_at(topic, EVIDENCE)
        return [r for r in self.log(topic, partition) if r.offset >= first]

    def step(self, topic: str, partition: int, most: int = 1_000_000) -> int:
        """Let an agent take up to `most` records; returns how many there were."""
        return self.give(topic, partition, self.due(topic, partition)[:most])

    def give(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        shard = self.engine.shards[partition]
        if topic == INTERACTIONS:
            users.step(self.engine, shard, records, TOLERANCE_MS, self.scorer)
        elif topic == EVIDENCE:
            items.step(self.engine, shard, topic, records)
        elif topic == RECOMMENDATIONS:
            # A worker never hands over nothing, and what is over is looked at with every batch.
            if records:
                feedback.step(self.engine, shard, topic, records)
        else:
            catalog.step(self.engine, shard, topic, records)
        return len(records)

    def checkpoint(self, partition: int) -> Checkpoint | None:
        shard = self.engine.shards[partition]
        if not shard.dirty:
            return None
        expiry.sweep_users(self.engine, shard, expiry.SWEEP_ROWS)
        taken = shard.swap(self.engine.users, self.engine.replica, self.engine.origin)
        for target, block in taken.blocks:
            self.append(EVIDENCE, target, None, block)
        self.dead += taken.dead
        for key, value in taken.carried.items():
            self.append(USERS, partition, key, value)
        shard.users_store.write(taken.users, 0)
        shard.items_store.write(taken.items, 0)
        shard.stored()
        self.engine.users.unpin(taken.pinned)
        return taken

    def checkpoint_all(self) -> bool:
        """Whether any shard had something to write."""
        taken = [self.checkpoint(partition) for partition in self.partitions]
        return any(checkpoint is not None for checkpoint in taken)

    def settle(self) -> None:
        """Catalogue, events, and evidence until nothing is left, checkpointed."""
        busy = True
        while busy:
            for topic in (VIDEOS, USERS, RECOMMENDATIONS, INTERACTIONS, EVIDENCE):
                for partition in self.partitions:
                    self.step(topic, partition)
            busy = self.checkpoint_all()

    def totals(self) -> dict[str, int]:
        return dict(self.engine.totals())

    def row(self, video_id: str) -> int:
        row = self.engine.replica.find(video_id)
        assert row is not None, video_id
        return row


def world(
    partitions: int = 4,
    max_users: int = 1_000,
    max_videos: int = 1_000,
    exploration: float = EXPLORATION,
    user_ttl_days: int | None = None,
    video_ttl_days: int | None = None,
) -> World:
    return World(
        EngineOptions(
            partitions=partitions, max_users=max_users, max_videos=max_videos, exploration=exploration,
            user_ttl_days=user_ttl_days, video_ttl_days=video_ttl_days,
        )
    )  # fmt: skip


def liked(user: str, video: str, number: int, *, event: str = "like", at_ms: int = NOW_MS) -> Interaction:
    return Interaction(f"e{number}", user, video, event, at_ms)  # type: ignore[arg-type] # tests name kinds as text


def random_events(seed: int, n: int) -> list[Interaction]:
    """Few users and videos, so that everything happens often; every tenth event is an earlier one once more."""
    random_ = random.Random(seed)
    events: list[Interaction] = []
    for number in range(n):
        if events and random_.random() < 0.1:
            events.append(random_.choice(events[-20:]))
            continue
        kind = random_.choice(EVENTS)
        watched = kind == "watch"
        events.append(
            Interaction(
                f"e{number}",
                f"user{random_.randrange(25)}",
                f"video{random_.randrange(40)}",
                kind,
                NOW_MS - 10**9 + number * 60_000 - random_.randrange(10**6),
                random_.choice([None, 1.0, 30.0]) if watched else None,
                random_.choice([None, 20.0]) if watched else None,
            )
        )
    return events


class WorldLog:
    """A log that is a world's lists, up to some offsets (next ones, by topic and partition; else all)."""

    def __init__(self, state: World, until: dict[str, dict[int, int]] | None = None) -> None:
        self._partitions, self._state, self._until = len(state.partitions), state, until

    def _stream(self, topic: str, partition: int) -> Stream:
        stream = (
            event_stream(partition, self._partitions, TOLERANCE_MS)
            if topic == INTERACTIONS
            else Stream(topic, partition)
        )
        end = 2**62 if self._until is None else self._until[topic].get(partition, 0)
        stream.add(RecordBatch.of([r for r in self._state.log(topic, partition) if r.offset < end]))
        stream.ended = True
        return stream

    def windows(self, size: int) -> Iterator[list[tuple[Stream, RecordBatch]]]:
        def streams(*topics: str) -> list[Stream]:
            return [self._stream(topic, partition) for topic in topics for partition in range(self._partitions)]

        self._lists = streams(RECOMMENDATIONS)
        return CanonicalOrder(streams(INTERACTIONS), streams(*CATALOGUE), lambda: None).windows(size)

    def lists(self, partition: int, until_ms: int | None, most: int) -> RecordBatch:
        return self._lists[partition].take_until(until_ms, most)
