"""A live version beside a canonical replay of the same records: what must be equal, and how near the rest is.

Flows in: the rows of both. Flows out: differences in words, and overlaps of lists. Must be equal: of each user the counters, the
history and what was seen; of each video the counters and the first positives; the totals. Vectors may differ, for they depend on the
order in which users of different shards were learned: they are compared by the lists that they make.

Deletions come by other topics than events, so which events they met depends on who read what first. Left out are videos that the
catalogue has deleted, those that have expired at any time, and erased users. Where there are deleted or erased ones, it is the sum of
the totals that must be equal, counters of times shown are not compared where videos were deleted, and a video's counters may differ by
what erased users did with it. Users who have expired are compared: of them there is nothing on both sides.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from agents.replayer import Replayer
from agents.worker import engine_options
from cli.snapshot import Snapshot
from infra.settings import Settings
from state import rows
from state.engine import Engine
from state.expiry import horizon
from state.ranking import best_of, score_rows
from state.replica import video_code
from state.rows import Cut
from state.shard import Shard
from state.store import MemoryStore
from state.types import Float32Array
from state.users import KINDS
from topics.evidence import SHOWN
from topics.partitions import partition_of, stable_hash

#: Length of the lists that are compared, and of how many users.
LIST, SAMPLE = 100, 200
#: What a record may have become, and what else is counted.
OUTCOMES = ("learned", "ignored", "duplicate", "dead")
TOTALS = (*OUTCOMES, "positives", "damped")
_ANY = 2**62

Table = Mapping[tuple[int, bytes], bytes]


@dataclass
class Comparison:
    """What was found; `left_out` counts deleted and expired videos and erased users, which are not compared."""

    users: int = 0
    videos: int = 0
    left_out: int = 0
    differences: list[str] = field(default_factory=list)

    def expect(self, what: str, live: object, replayed: object) -> None:
        """Note a difference."""
        if live != replayed:
            self.differences.append(f"{what}: live {live}, replayed {replayed}")

    def expect_near(self, what: str, live: list[int], replayed: list[int], spare: list[int]) -> None:
        """Note a difference where any number differs by more than it may."""
        if any(abs(one - other) > most for one, other, most in zip(live, replayed, spare, strict=True)):
            self.expect(what, live, replayed)


def erased_users(*tables: Table) -> set[tuple[int, bytes]]:
    """Shard and id (UTF-8) of the users whom any of the tables knows to be erased."""
    return {
        (number, key[len(rows.ATTRIBUTES) :])
        for table in tables
        for (number, key), value in table.items()
        if key.startswith(rows.ATTRIBUTES) and rows.decode_attributes(value).erased_ms is not None
    }


def compare_counters(
    live: Snapshot, replayer: Replayer, replayed: Table, slack: Counter[tuple[str, int]] | None = None
) -> Comparison:
    """Compare what must be equal; `slack` has what erased users did, by video and kind."""
    found = Comparison()
    ttl_days = replayer.engine.options.user_ttl_days
    held = _unexpired(live.rows, {n: horizon(shard.cut.event_ms, ttl_days) for n, shard in live.shards.items()})
    gone = {key.decode() for key in replayer.deleted} | _marked(rows.DELETED_MARK, held, replayed)
    expired = _marked(rows.EXPIRED_MARK, held, replayed) | _returned(held, replayed)
    erased = erased_users(held, replayed)
    found.left_out = len(gone | expired) + len(erased)
    for number, shard in live.shards.items():
        _compare_totals(found, number, shard.cut.totals, replayer.engine.shards[number].totals, not gone and not erased)
    users = _keys(held, rows.USER) | _keys(replayed, rows.USER)
    codes = {video_code(video_id) for video_id in gone}
    for place in sorted(users, key=lambda place: (place[1], place[0])):
        if (place[0], place[1][len(rows.USER) :]) in erased:
            continue
        found.users += 1
        _compare_user(found, place, held.get(place), replayed.get(place), gone, codes)
    videos = {key[len(rows.ITEM) :].decode() for table in (held, replayed) for _, key in _keys(table, rows.ITEM)}
    for name in sorted(videos | {video for video, _ in live.late}):
        if name in gone or name in expired:
            continue
        found.videos += 1
        place = partition_of(name.encode(), replayer.engine.options.partitions), rows.ITEM + name.encode()
        counts, plays = _counted(held.get(place))
        counts = [count + live.late[name, kind] for kind, count in enumerate(counts)]
        expected, expected_plays = _counted(replayed.get(place))
        spare = [0 if slack is None else slack[name, kind] for kind in range(KINDS)]
        done = sum(spare)
        spare[SHOWN] = _ANY if gone else done
        found.expect_near(f"video {name}, counters", counts, expected, spare)
        found.expect_near(f"video {name}, first positives", [plays + live.late_plays[name]], [expected_plays], [done])
    return found


def _compare_totals(
    found: Comparison, number: int, live: Mapping[str, int], replayed: Mapping[str, int], each: bool
) -> None:
    """Compare totals of a shard: each, and their sum."""
    for name in TOTALS if each else ():
        found.expect(f"shard {number}, {name}", live.get(name, 0), replayed.get(name, 0))
    sums = [sum(side.get(name, 0) for name in OUTCOMES) for side in (live, replayed)]
    found.expect(f"shard {number}, records", *sums)


def _unexpired(table: Table, horizons: Mapping[int, int]) -> Table:
    """The table without rows of expired users: they say nothing, and are there until they are swept."""
    return {
        (number, key): row
        for (number, key), row in table.items()
        if not (key.startswith(rows.USER) and rows.user_day(row) < horizons[number])
    }


def _marked(mark: bytes, *tables: Table) -> set[str]:
    """Videos with this mark in any of the tables."""
    return {
        key[len(rows.DELETED) :].decode()
        for table in tables
        for (number, key) in _keys(table, rows.DELETED)
        if table[number, key] == mark
    }


def _returned(*tables: Table) -> set[str]:
    """Videos that have come back after they had expired."""
    return {
        key[len(rows.ITEM) :].decode()
        for table in tables
        for (number, key) in _keys(table, rows.ITEM)
        if rows.has_returned(table[number, key])
    }


def _keys(table: Table, prefix: bytes) -> set[tuple[int, bytes]]:
    return {place for place in table if place[1].startswith(prefix)}


def _counted(row: bytes | None) -> tuple[list[int], int]:
    if row is None:
        return [0] * KINDS, 0
    read = rows.read_item(row)
    return read["counts"].tolist(), int(read["plays"])


def _compare_user(
    found: Comparison,
    place: tuple[int, bytes],
    live: bytes | None,
    replayed: bytes | None,
    gone: set[str],
    codes: set[int],
) -> None:
    """Compare a user; `gone` are videos that were deleted, `codes` their hashes."""
    user = f"user {place[1][len(rows.USER) :].decode()}"
    if live is None or replayed is None:
        found.differences.append(f"{user}: only {'replayed' if live is None else 'live'}")
        return
    one, other = rows.read_user(live), rows.read_user(replayed)
    found.expect(f"{user}, counters", one["counts"].tolist(), other["counts"].tolist())
    found.expect(f"{user}, latest event", int(one["last_ms"]), int(other["last_ms"]))
    histories = [[each for each in row["history"] if each not in gone] for row in (one, other)]
    seen = [[code for code in row["seen"].tolist() if code & ~1 not in codes] for row in (one, other)]
    if gone:
        # A deletion that came sooner has made room for what is older.
        histories = [history[: min(map(len, histories))] for history in histories]
        seen = [each[len(each) - min(map(len, seen)) :] for each in seen]
    found.expect(f"{user}, history", *histories)
    found.expect(f"{user}, seen", *seen)


def overlaps(settings: Settings, live: Snapshot, replayer: Replayer, replayed: Table) -> dict[str, dict[str, float]]:
    """How much of the first LIST videos the lists of both have in common, in the mean and of the tenth of users with the least.

    `vectors`: by the factors alone; `lists`: as they would be served.
    """
    sides = _engine(settings, {n: (shard.rows, shard.cut) for n, shard in live.shards.items()}), replayer.engine
    users = sorted(
        (
            key[len(rows.USER) :].decode()
            for (number, key) in _keys(live.rows, rows.USER) & _keys(replayed, rows.USER)
            if rows.read_user(replayed[number, key])["history"]
        ),
        key=stable_hash,
    )[:SAMPLE]
    ways: dict[str, Callable[[Engine, str], Sequence[str]]] = {"vectors": _by_factors, "lists": _as_served}
    found = {}
    for name, way in ways.items():
        shares = [_overlap(way(sides[0], user), way(sides[1], user)) for user in users]
        found[name] = {
            "mean": round(float(np.mean(shares)), 4) if shares else 1.0,
            "p10": round(float(np.quantile(shares, 0.1)), 4) if shares else 1.0,
            "users": len(shares),
        }
    return found


def _overlap(one: Sequence[str], other: Sequence[str]) -> float:
    longest = max(len(one), len(other))
    return len(set(one) & set(other)) / longest if longest else 1.0


def _engine(settings: Settings, shards: Mapping[int, tuple[Mapping[bytes, bytes], Cut]]) -> Engine:
    """An engine that holds a version's rows."""
    engine = Engine(engine_options(settings), b"compared")
    for number, (held, cut) in shards.items():
        users, items = MemoryStore(), MemoryStore()
        users.write([(key, row) for key, row in held.items() if key[:2] in (rows.USER, rows.ATTRIBUTES)], 0)
        items.write([(key, row) for key, row in held.items() if key[:2] not in (rows.USER, rows.ATTRIBUTES)], 0)
        engine.add_shard(Shard(number, users, items, cut))
    return engine


def _slot(engine: Engine, user: str) -> int:
    slot = engine.users.find(user, partition_of(user.encode(), engine.options.partitions))
    if slot is None:
        raise KeyError(user)
    return slot


def _by_factors(engine: Engine, user: str) -> list[str]:
    slot = _slot(engine, user)
    context, allowed = engine.context(slot), engine.allowed(slot)
    scores: Float32Array = np.empty(len(allowed), np.float32)
    engine.mf.scores(engine.mf.user_vector(context.p, context.history), scores)
    scores[~allowed] = -np.inf
    order = np.argsort(-scores, kind="stable")[: min(LIST, int(allowed.sum()))]
    return engine.replica.ids_of(order.tolist())


def _as_served(engine: Engine, user: str) -> list[str]:
    slot = _slot(engine, user)
    context, allowed = engine.context(slot), engine.allowed(slot)
    everything = engine.options.max_videos
    scored = best_of(score_rows(engine, context, allowed, LIST, exact_below=everything), LIST)
    return engine.replica.ids_of(scored.rows.tolist())
