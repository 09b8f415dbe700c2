"""A stage for crashes: one broker with one small log, workers that die as told, and the comparison with a recount in the end."""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.protocol.group import LeaveGroupRequest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from cli.committed import Table, latest, read_committed
from cli.recount import Recount
from infra.kafka_probe import free_port
from ingestion.produce import produce_videos
from ingestion.simulate import START_MS, Audience
from state import rows
from state.replica import video_code
from state.store import OFFSET_KEY, TOPIC_KEY, RocksStore
from state.users import DUPLICATE, IGNORED, KINDS, POSITIVE, SIGNAL
from tests.agents.faults import Fault
from tests.agents.lives import HOST, Life, Lives
from topics.interactions import Interaction, decode_value, encode
from topics.partitions import partition_of
from topics.rejected import Rejected
from topics.specs import DEAD, INTERACTIONS, changelog_topic, ensure_topics, evidence_topic, specs

VERSION, PARTITIONS = "v1", 2
EVENTS, USERS, VIDEOS = 3_000, 150, 100
OUTCOMES = ("learned", "ignored", "duplicate", "dead")
BAD = (b"{", b"\xff\xfe", b'{"v":9}')
#: A checkpoint every few chunks, so that a short log has many; tails in several batches.
CONSTANTS = {"agents.app:PENDING_BYTES": 20_000, "agents.takeover:TAIL_BATCH": 100, "agents.expiry:SWEEP_ROWS": 15}
#: Fewer slots than users: they are evicted and read back.
SETTINGS = {"partitions": PARTITIONS, "checkpoint_interval_ms": 10, "max_users": 120}


def simulate(seed: int, n: int, start_ms: int = START_MS) -> Iterator[tuple[bytes | None, bytes, int]]:
    """Events as (key, value, partition), with a producer's repeats, at once and later, and records that are no events."""
    random_ = random.Random(seed)
    sent: list[Interaction] = []
    for event in Audience(seed, USERS, VIDEOS, start_ms=start_ms).events(n):
        sent.append(event)
        repeats = [random_.choice(sent[-30:])] if random_.random() < 0.05 else []
        for each in (event, *repeats):
            key = each.user_id.encode()
            yield key, encode(each), partition_of(key, PARTITIONS)
        if random_.random() < 0.02:
            yield None, random_.choice(BAD), random_.randrange(PARTITIONS)


class Stage:
    """One log that every app learns from the beginning, each under a name of its own.

    Parameters
    ----------
    bootstrap : a broker of the stage's own
    lives : where workers come from
    folder : their homes
    events : how many the log begins with, repeats and garbage not counted
    """

    def __init__(self, bootstrap: str, lives: Lives, folder: Path, events: int = EVENTS) -> None:
        self.bootstrap, self.lives, self.folder = bootstrap, lives, folder
        ensure_topics(bootstrap, specs("stage", VERSION, PARTITIONS))
        produce_videos(bootstrap, Audience(7, USERS, VIDEOS).videos())
        self.extend(7, events)

    def extend(self, seed: int, n: int) -> None:
        """Add events to the log."""
        self.append(simulate(seed, n))

    def repeat(self, partition: int) -> None:
        """Add the last event of each user of a partition once more."""
        last = {r.key(): r.value() for r in self.log if r.partition() == partition and r.value() not in BAD}
        self.append((key, value or b"", partition) for key, value in last.items())

    def append(self, records: Iterable[tuple[bytes | None, bytes, int]]) -> None:
        """Add (key, value, partition) to the log."""
        producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 5})
        for key, value, partition in records:
            producer.produce(INTERACTIONS, value, key, partition)
        assert producer.flush(20) == 0
        self.log = read_committed(self.bootstrap, INTERACTIONS)
        self.recount = Recount(interactions(self.log))

    def start(
        self,
        app: str,
        fault: Fault | None = None,
        home: str = "",
        constants: Mapping[str, object] | None = None,
        **settings: Any,
    ) -> Life:
        """Start a worker of `app`, whose home is its own unless it is named."""
        folder = self.folder / "-".join([app, *([home] if home else [])])
        folder.mkdir(exist_ok=True)
        port = free_port(HOST)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")},
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "HEADRACE_HOME": str(folder),
            "HEADRACE_APP": app,
            "HEADRACE_WEB_PORT": str(port),
            **{f"HEADRACE_{name.upper()}": str(value) for name, value in {**SETTINGS, **settings}.items()},
        }
        # Not at home, where the disk may be full.
        log_file = self.folder / f"{folder.name}-{time.time_ns()}.log"
        pid = self.lives.start(
            environment=environment,
            log=str(log_file),
            fault=None if fault is None else asdict(fault),
            constants={**CONSTANTS, **(constants or {})},
        )
        return Life(self.lives, pid, port, folder, log_file)

    def evict(self, app: str, keep: Sequence[str] = ()) -> None:
        """Take dead members out of the group, as the broker would when their 10 s are over."""
        asyncio.run(_leave(self.bootstrap, f"{app}.{VERSION}", [m for m in self.members(app) if m not in keep]))

    def members(self, app: str) -> list[str]:
        """Members of the group, dead ones included."""
        group = f"{app}.{VERSION}"
        # Kept: without its client, an answer never comes.
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        described = admin.describe_consumer_groups([group])[group].result(20)
        return [member.member_id for member in described.members]

    def table(self, app: str, name: str) -> Table:
        """What the changelog holds now."""
        return latest(read_committed(self.bootstrap, changelog_topic(app, VERSION, name)))

    def dead_letters(self) -> Counter[tuple[bytes | None, bytes | None]]:
        """All dead letters so far, of every app."""
        return Counter((record.key(), record.value()) for record in read_committed(self.bootstrap, DEAD))

    def finish(self, app: str, life: Life, before: Counter[tuple[bytes | None, bytes | None]]) -> None:
        """Wait until `life` has nothing left to do, stop it, and compare everything with the recount."""
        life.until(
            lambda: sum(map(life.totals().get, OUTCOMES, [0] * 4)) == len(self.log) or None, "not all is learned", 30
        )
        totals = life.totals()
        expected = sum(self.recount.items.values())
        life.until(lambda: self.counted(app) >= expected or None, "evidence is missing")
        life.stop()
        compare(self, app, totals, self.dead_letters() - before)
        assert life.home.name != app or stores(life.home) == {
            (table, partition, key): value
            for table in ("users", "items")
            for (partition, key), value in self.table(app, table).items()
        }

    def caught_up(self, life: Life) -> None:
        """Wait until `life` has taken every event."""
        life.until(
            lambda: sum(map(life.totals().get, OUTCOMES, [0] * 4)) == len(self.log) or None, "not all is learned"
        )

    def settled(self, life: Life, app: str) -> None:
        """Wait until `life` has taken every event, and all that they taught is in committed rows."""
        self.caught_up(life)
        life.until(lambda: self._nothing_waits(evidence_topic(app, VERSION), f"{app}.{VERSION}"), "evidence waits")

    def _nothing_waits(self, topic: str, group: str) -> bool | None:
        """True if no record of the topic lies behind the group's committed positions, else None."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": group,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                # Evidence that is about to be committed waits too.
                "isolation.level": "read_uncommitted",
                # The end of a quiet topic is told after one wait; half a second by default.
                "fetch.wait.max.ms": 20,
            }
        )
        try:
            # A client that knows the leaders reads at once; one that has to find them first looks for a second.
            consumer.list_topics(topic, timeout=10)
            left = consumer.committed([TopicPartition(topic, partition) for partition in range(PARTITIONS)], timeout=10)
            consumer.assign([TopicPartition(topic, at.partition, max(0, at.offset)) for at in left])
            ended = 0
            while ended < PARTITIONS:
                # One at a time: a call for more waits for the last of them, and one record is answer enough.
                record = consumer.poll(1.0)
                if record is not None and record.error() is None:
                    return None
                ended += record is not None
            return True
        finally:
            consumer.close()

    def counted(self, app: str) -> int:
        """Events in committed rows of videos."""
        items = self.table(app, "items")
        return sum(
            int(rows.read_item(value)["counts"].sum()) for (_, key), value in items.items() if key[:2] == rows.ITEM
        )


async def _leave(bootstrap: str, group: str, members: Sequence[str]) -> None:
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    await client.bootstrap()
    try:
        coordinator = await client.coordinator_lookup(CoordinationType.GROUP, group)
        for member in members:
            await client.send(coordinator, LeaveGroupRequest(group, member))
    finally:
        await client.close()


def interactions(log: Sequence[Message]) -> Iterator[Interaction]:
    """What of the log can be learned."""
    for record in log:
        try:
            yield decode_value(record.value() or b"")
        except Rejected:
            continue


def stores(home: Path) -> dict[tuple[str, int, bytes], bytes]:
    """All rows on the disk."""
    found: dict[tuple[str, int, bytes], bytes] = {}
    for table in ("users", "items"):
        for partition in range(PARTITIONS):
            store = RocksStore(home / "state" / VERSION / f"{table}-{partition}")
            found |= {
                (table, partition, key): value for key, value in store.scan(b"") if key not in (OFFSET_KEY, TOPIC_KEY)
            }
            store.close()
    return found


def compare(
    stage: Stage, app: str, totals: Mapping[str, int], dead: Counter[tuple[bytes | None, bytes | None]]
) -> None:
    """Every committed row against the recount of the log."""
    recount, users, items = stage.recount, stage.table(app, "users"), stage.table(app, "items")
    refused = Counter((r.key(), r.value()) for r in stage.log if r.value() in BAD)
    outcomes = {
        "learned": recount.outcomes[POSITIVE] + recount.outcomes[SIGNAL],
        "ignored": recount.outcomes[IGNORED],
        "duplicate": recount.outcomes[DUPLICATE],
        "dead": refused.total(),
    }
    assert min(outcomes.values()) > len(stage.log) // 100
    cuts = [rows.decode_cut(value) for (_, key), value in users.items() if key == rows.CUT_KEY]
    assert {name: totals.get(name, 0) for name in OUTCOMES} == outcomes
    assert {name: sum(cut.totals.get(name, 0) for cut in cuts) for name in OUTCOMES} == outcomes
    assert dead == refused

    stored = {key[2:].decode(): rows.read_user(value) for (_, key), value in users.items() if key[:2] == rows.USER}
    assert stored.keys() == recount.users.keys()
    for user_id, plain in recount.users.items():
        row = stored[user_id]
        assert row["counts"].tolist() == [plain.counts[kind] for kind in range(KINDS)], user_id
        assert row["history"] == plain.history, user_id
        assert row["seen"].tolist() == [video_code(v) | int(flag) for v, flag in plain.seen.items()], user_id
        assert row["last_ms"] == plain.last_ms, user_id

    videos = {key[2:].decode(): rows.read_item(value) for (_, key), value in items.items() if key[:2] == rows.ITEM}
    for video_id in {video_id for video_id, _ in recount.items}:
        expected = [recount.items[video_id, kind] for kind in range(KINDS)]
        assert videos[video_id]["counts"].tolist() == expected, video_id
        assert videos[video_id]["plays"] == recount.plays[video_id], video_id
    assert len(videos) == VIDEOS
    assert all(np.isfinite(row["q"]).all() for row in videos.values())
