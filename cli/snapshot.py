"""What a version has committed, read beside the worker that goes on: no group is joined, nothing is locked or asked.

Flows in: changelogs and evidence, committed records only. Flows out: each shard's rows and cut, as of one of its checkpoints; and the
evidence between what the videos' rows hold and what the users' rows have taught. Always holds: a shard's rows and its cut are of the
same checkpoint; different shards may be of different moments.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from confluent_kafka import Message

from cli.committed import CommittedLog
from cli.versions import UnknownVersion, VersionMoves
from infra.settings import Settings
from state import rows
from state.rows import Cut
from topics.evidence import BadBlock, EvidenceBlock, unpack
from topics.specs import changelog_topic, evidence_topic
from topics.versions import known_versions

#: A busy shard commits four times a second; one that is not caught between two checkpoints for so long commits without a pause.
CAUGHT_S = 120.0

Rows = dict[tuple[int, bytes], bytes]


@dataclass
class ShardRows:
    """Rows of both tables of a shard by key; `ends` are those of the evidence partitions when they were read."""

    rows: dict[bytes, bytes] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)

    @property
    def cut(self) -> Cut:
        """Where the shard stands."""
        data = self.rows.get(rows.CUT_KEY)
        return Cut({}) if data is None else rows.decode_cut(data)


@dataclass
class Snapshot:
    """A version as committed.

    Attributes
    ----------
    shards : by number
    late : by video and kind, and by video, events and first positives that users' rows have taught and that videos' rows do not
        hold yet; less than 0 where the latter are ahead
    """

    shards: dict[int, ShardRows]
    late: Counter[tuple[str, int]] = field(default_factory=Counter)
    late_plays: Counter[str] = field(default_factory=Counter)

    @property
    def rows(self) -> Rows:
        """All rows, by shard and key."""
        return {(number, key): value for number, shard in self.shards.items() for key, value in shard.rows.items()}

    def places(self, topics: Iterable[str]) -> dict[str, dict[int, int]]:
        """Next offset of each of the topics, by partition."""
        cuts = {number: shard.cut for number, shard in self.shards.items()}
        return {topic: {number: cut.next.get(topic, 0) for number, cut in cuts.items()} for topic in topics}


def take_snapshot(settings: Settings, bootstrap: str, version: str) -> Snapshot:
    """Read a version.

    Raises
    ------
    UnknownVersion
        It has no topics.
    VersionMoves
    """
    known = known_versions(bootstrap, settings.app)
    if version not in known:
        raise UnknownVersion(f"there is no version {version} of {settings.app}: there are {', '.join(known) or 'none'}")
    changelogs = [changelog_topic(settings.app, version, table) for table in ("users", "items")]
    topic = evidence_topic(settings.app, version)
    with (
        CommittedLog(bootstrap, changelogs[0]) as users,
        CommittedLog(bootstrap, changelogs[1]) as items,
        CommittedLog(bootstrap, topic) as evidence,
    ):
        shards = _read_shards(users, items, evidence)
        snapshot = Snapshot(shards)
        begin = {
            target: min(shards[target].cut.next.get(topic, 0), *(shard.ends[target] for shard in shards.values()))
            for target in shards
        }
        for record in evidence.since(begin):
            _count_late(snapshot, topic, record)
    return snapshot


def _read_shards(users: CommittedLog, items: CommittedLog, evidence: CommittedLog) -> dict[int, ShardRows]:
    shards = {number: ShardRows() for number in evidence.ends()}
    left = set(shards)

    def advance() -> set[int]:
        moved = set()
        for log in (users, items):
            for record in log.advance():
                number = record.partition() or 0
                if number in left:
                    moved.add(number)
                    _put(shards[number].rows, record)
        return moved

    advance()
    deadline = time.monotonic() + CAUGHT_S
    while left:
        # If nothing of a shard came before and after, all three topics are as one checkpoint has left them.
        ends = evidence.ends()
        for number in left - advance():
            shards[number].ends = ends
            left.discard(number)
        if left and time.monotonic() > deadline:
            raise VersionMoves(
                f"shards {sorted(left)} committed without a pause for {CAUGHT_S:.0f} s: set HEADRACE_CHECKPOINT_INTERVAL_MS"
                " higher, or try again when less arrives"
            )
    return shards


def _put(held: dict[bytes, bytes], record: Message) -> None:
    key, value = record.key() or b"", record.value()
    if value is None:
        held.pop(key, None)
    else:
        held[key] = value


def _count_late(snapshot: Snapshot, topic: str, record: Message) -> None:
    target, offset = record.partition() or 0, record.offset() or 0
    try:
        block = unpack(record.value() or b"")
    except BadBlock:
        return
    applied = offset < snapshot.shards[target].cut.next.get(topic, 0)
    taught = offset < snapshot.shards[block.sender].ends[target]
    if applied != taught:
        _add(snapshot, block, 1 if taught else -1)


def _add(snapshot: Snapshot, block: EvidenceBlock, times: int) -> None:
    for item, kind in zip(block.events["item"].tolist(), block.events["kind"].tolist(), strict=True):
        snapshot.late[block.ids[item], kind] += times
    for item in block.events["item"][np.asarray(block.events["positive"]) == 1].tolist():
        snapshot.late_plays[block.ids[item]] += times


def committed_rows(settings: Settings, bootstrap: str, version: str) -> Mapping[tuple[int, bytes], bytes]:
    """Rows of both tables of a version; raises as `take_snapshot`."""
    return take_snapshot(settings, bootstrap, version).rows
