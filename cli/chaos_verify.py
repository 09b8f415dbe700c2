"""What a version has committed, against a recount of its log: totals, dead letters, users, videos, links and the stores on disk.

Changelogs and the log flow in, differences in words flow out. Rows are read by their layout (`state.rows`); what they should hold is
counted by `cli.recount` alone.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from confluent_kafka import Message

from cli.chaos_load import record_hash
from cli.committed import Table
from cli.plain_user import DUPLICATE, IGNORED, POSITIVE, SIGNAL, PlainUser
from cli.recount import COVISITS_HALF_LIFE, MARKOV_HALF_LIFE, POPULARITY_HALF_LIVES, Fading, Links, Recount
from state import rows
from state.store import OFFSET_KEY, TOPIC_KEY, RocksStore
from state.users import KINDS
from topics.dead_letter import parse_dead_letter
from topics.interactions import decode
from topics.partitions import partition_of, stable_hash
from topics.rejected import Rejected
from topics.specs import INTERACTIONS

#: Floats agree to this, relatively: a row's weights are float32, and so are sums of some ten thousand of them. Of fewer than 100,000
#: positives one that is lost or doubled is more.
TOLERANCE = 1e-5
#: Weights below it may have become 0: a hundred half-lives after they were added.
FADED_AWAY = 1e-28
Headers = list[tuple[str, bytes | None]]
#: Lists of so many neighbours may have lost some.
SLOTS = {"covisitation": 200, "markov": 100}


class LoggedEvents:
    """The log of interactions, recounted while it is read."""

    def __init__(self, partitions: int, positives_per_day: float, future_tolerance_ms: int) -> None:
        self._partitions, self._tolerance_ms = partitions, future_tolerance_ms
        self.recount = Recount(positives_per_day=positives_per_day)
        self.records = 0
        #: By place: what a dead letter of the record holds, and why.
        self.refused: dict[tuple[int, int], tuple[bytes, bytes, str]] = {}
        #: By user: the offset of the last record of theirs.
        self.offsets: dict[str, int] = {}
        self._hashes: list[dict[int, int]] = [{} for _ in range(partitions)]

    def take(self, records: Iterable[Message]) -> None:
        """Count records; each partition's come in order."""
        for record in records:
            key, value = record.key(), record.value()
            partition, offset = record.partition() or 0, record.offset() or 0
            self.records += 1
            self._hashes[partition][offset] = record_hash(key, value)
            try:
                event = decode(
                    key,
                    value,
                    record.timestamp()[1],
                    partition=partition,
                    partitions=self._partitions,
                    future_tolerance_ms=self._tolerance_ms,
                )
            except Rejected as error:
                self.refused[partition, offset] = key or b"", value or b"", str(error.reason)
            else:
                self.recount.count(event)
                self.offsets[event.user_id] = offset

    def missing(self, acknowledged: list[dict[int, int]]) -> Iterator[str]:
        """Records that were acknowledged at an offset where the log holds another one, or none."""
        for partition, (known, found) in enumerate(zip(acknowledged, self._hashes, strict=True)):
            for offset, digest in known.items():
                if found.get(offset) != digest:
                    yield f"{INTERACTIONS}[{partition}] offset {offset} was acknowledged and is not in the log"


@dataclass
class Verdict:
    """Differences found; `lost` and `doubled` are events too few and too many in the state."""

    lost: int = 0
    doubled: int = 0
    differences: list[str] = field(default_factory=list)
    rows_compared: int = 0
    rows_truncated: int = 0
    #: Of the floats compared, relatively; those that have all but faded away are left out.
    largest_error: float = 0.0
    _balance: dict[str, Counter[str]] = field(default_factory=dict)

    def expect(self, what: str, found: object, expected: object) -> None:
        """Note a difference."""
        if found != expected:
            self.differences.append(f"{what}: found {found}, expected {expected}")

    def expect_close(self, what: str, found: float, expected: float) -> None:
        """Note a difference beyond the tolerance."""
        if abs(expected) > FADED_AWAY / TOLERANCE:
            self.largest_error = max(self.largest_error, abs(found / expected - 1.0))
        if not math.isclose(found, expected, rel_tol=TOLERANCE, abs_tol=FADED_AWAY):
            self.differences.append(f"{what}: found {found!r}, expected {expected!r}")

    def expect_counts(self, side: str, what: str, found: list[int], expected: list[int]) -> None:
        """Note differences of event counts; `side` counts every event once."""
        self.expect(what, found, expected)
        balance = self._balance.setdefault(side, Counter())
        for have, due in zip(found, expected, strict=True):
            balance["lost"] += max(0, due - have)
            balance["doubled"] += max(0, have - due)
        # Sides count the same events: what both miss is missing once.
        self.lost = max(side["lost"] for side in self._balance.values())
        self.doubled = max(side["doubled"] for side in self._balance.values())


def check_dead_letters(verdict: Verdict, log: LoggedEvents, letters: Iterable[Message]) -> None:
    """Each refused record has one dead letter that names its place and holds its bytes."""
    found: Counter[tuple[int, int]] = Counter()
    for record in letters:
        letter = parse_dead_letter(record.key(), record.value(), cast("Headers", record.headers()))
        place = letter.partition, letter.offset
        found[place] += 1
        content = letter.key or b"", letter.value or b"", letter.reason
        verdict.expect(f"dead letter of {letter.topic}{list(place)}", content, log.refused.get(place))
    places = sorted(found.keys() | log.refused.keys())
    for place in places:
        counts = [found[place]], [int(place in log.refused)]
        verdict.expect_counts("dead letters", f"dead letters of {INTERACTIONS}{list(place)}", *counts)


def check_users(verdict: Verdict, log: LoggedEvents, table: Table, partitions: int) -> None:
    """Totals of the cuts, and every user: counters, history, what was passed over, seen videos, remembered ids."""
    recount = log.recount
    totals: Counter[str] = Counter()
    for (_, key), value in table.items():
        if key == rows.CUT_KEY:
            totals.update(rows.decode_cut(value).totals)
    expected = {
        "learned": recount.outcomes[POSITIVE] + recount.outcomes[SIGNAL],
        "positives": recount.outcomes[POSITIVE] - recount.damped,
        "damped": recount.damped,
        "ignored": recount.outcomes[IGNORED],
        "duplicate": recount.outcomes[DUPLICATE],
        "dead": len(log.refused),
        **{f"dead.{reason}": n for reason, n in Counter(reason for _, _, reason in log.refused.values()).items()},
    }
    for name in sorted(expected.keys() | totals.keys()):
        verdict.expect_counts(f"total {name}", f"total {name}", [totals[name]], [expected.get(name, 0)])
    stored = _stored(verdict, table, rows.USER, partitions)
    for user_id in sorted(stored.keys() | recount.users.keys()):
        plain = recount.users.get(user_id, PlainUser())
        data = stored.get(user_id)
        row = None if data is None else rows.read_user(data)
        kinds = range(KINDS)
        found = [0 for _ in kinds] if row is None else row["counts"].tolist()
        name = f"user {user_id}"
        verdict.expect_counts("users", f"{name} counts", found, [plain.counts[kind] for kind in kinds])
        if row is not None:
            seen = [video_code(video) | int(positive) for video, positive in plain.seen.items()]
            verdict.expect(f"{name} history", row["history"], plain.history)
            verdict.expect(f"{name} open video", (row["open"], bool(row["open_liked"])), (plain.open, plain.open_liked))
            passed = [code for code in row["passed"].tolist() if code]
            verdict.expect(f"{name} passed over", passed, [video_code(video) for video in plain.passed])
            verdict.expect(f"{name} seen", row["seen"].tolist(), seen)
            verdict.expect(f"{name} event ids", set(row["recent"].tolist()) - {0}, set(plain.recent))
            verdict.expect(f"{name} last_ms", int(row["last_ms"]), plain.last_ms)
            verdict.expect(f"{name} offset", int(row["offset"]), log.offsets.get(user_id, -1))


def check_videos(verdict: Verdict, log: LoggedEvents, table: Table, partitions: int, published: set[str]) -> None:
    """Every video: counters, plays, fading counts, and its lists of neighbours, those that may be truncated left out."""
    recount = log.recount
    stored = _stored(verdict, table, rows.ITEM, partitions)
    lists = _stored(verdict, table, rows.NEIGHBOURS, partitions)
    expected_ids = published | {video_id for video_id, _ in recount.items}
    verdict.expect("videos that should have no row", sorted(stored.keys() - expected_ids), [])
    for video_id in sorted(expected_ids):
        data = stored.get(video_id)
        row = None if data is None else rows.read_item(data)
        expected = [recount.items[video_id, kind] for kind in range(KINDS)]
        name = f"video {video_id}"
        found = [0] * KINDS if row is None else row["counts"].tolist()
        verdict.expect_counts("videos", f"{name} counts", found, expected)
        if row is None:
            verdict.differences.append(f"{name} has no row")
            continue
        verdict.expect(f"{name} plays", float(row["plays"]), float(recount.plays[video_id]))
        if video_id in recount.faded:
            _check_popularity(verdict, recount, video_id, row)
    expected_lists = recount.covisits.keys() | recount.markov.keys()
    for video_id in sorted(expected_lists | lists.keys()):
        packed = lists.get(video_id)
        found_lists = {} if packed is None else rows.read_neighbours(packed)
        models: tuple[tuple[str, Links, float], ...] = (
            ("covisitation", recount.covisits, COVISITS_HALF_LIFE),
            ("markov", recount.markov, MARKOV_HALF_LIFE),
        )
        for model, links, half_life in models:
            at, entries = found_lists.get(model, (0.0, []))
            neighbours = {int(entry["item"]): float(entry["weight"]) for entry in entries}
            if len(neighbours) >= SLOTS[model]:
                verdict.rows_truncated += 1
                continue
            verdict.rows_compared += 1
            # Ticks are event time: a row's reference back in ms.
            due = _as_of(links.get(video_id, {}), at * recount.tick_ms, half_life * recount.tick_ms)
            verdict.expect(f"{model} of {video_id}, neighbours missing", due.keys() - neighbours.keys(), set())
            verdict.expect(f"{model} of {video_id}, neighbours too many", neighbours.keys() - due.keys(), set())
            for code in due.keys() & neighbours.keys():
                verdict.expect_close(f"{model} of {video_id} with {code:#x}", neighbours[code], due[code])


def _check_popularity(verdict: Verdict, recount: Recount, video_id: str, row: Mapping[str, Any]) -> None:
    first_ms, last_ms = recount.span_ms[video_id]
    name = f"video {video_id}"
    verdict.expect(f"{name} first_ms, last_ms", (int(row["first_ms"]), int(row["last_ms"])), (first_ms, last_ms))
    verdict.expect_close(f"{name} decayed_at", float(row["decayed_at"]), last_ms / recount.tick_ms)
    for total, half_life, found in zip(recount.faded[video_id], POPULARITY_HALF_LIVES, row["decayed"], strict=True):
        expected = total.as_of(last_ms, half_life * recount.tick_ms)
        verdict.expect_close(f"{name} plays fading by {half_life:.0f}", float(found), expected)
    if not all(math.isfinite(number) for number in (*row["q"].tolist(), float(row["b"]), float(row["acc"]))):
        verdict.differences.append(f"{name} has factors that are not finite")


def _as_of(links: Mapping[str, Fading], at_ms: float, half_life_ms: float) -> dict[int, float]:
    return {video_code(target): total.as_of(at_ms, half_life_ms) for target, total in links.items()}


def video_code(video_id: str) -> int:
    """The number that names a video in rows: its hash, even and not 0."""
    return (stable_hash(video_id) & ~1) or 2


def _stored(verdict: Verdict, table: Table, prefix: bytes, partitions: int) -> dict[str, bytes]:
    """Rows of one kind by id; one that lies in another partition than its id's is a difference."""
    stored: dict[str, bytes] = {}
    for (partition, key), value in table.items():
        if key.startswith(prefix):
            name = key[len(prefix) :]
            verdict.expect(f"partition of {key!r}", partition, partition_of(name, partitions))
            stored[name.decode()] = value
    return stored


def check_stores(verdict: Verdict, folder: Path, tables: Mapping[str, Table], partitions: int) -> None:
    """A worker's disk, once the worker has owned all shards and ended, holds what the changelogs mean and nothing else."""
    for name, table in tables.items():
        for partition in range(partitions):
            store = RocksStore(folder / f"{name}-{partition}")
            found = {key: value for key, value in store.scan(b"") if key not in (OFFSET_KEY, TOPIC_KEY)}
            store.close()
            expected = {key: value for (where, key), value in table.items() if where == partition}
            wrong = sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
            verdict.expect(f"rows of {folder}/{name}-{partition} that differ from the changelog", wrong, [])
