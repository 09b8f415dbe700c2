"""The comparison behind `headrace chaos`: silent about a state that is right, and never about one that is not."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from confluent_kafka import Message

from cli.chaos_verify import (
    LoggedEvents,
    Verdict,
    check_dead_letters,
    check_stores,
    check_users,
    check_videos,
)
from cli.committed import Table
from state import rows
from state.store import RocksStore
from tests.agents.world import NOW_MS, TOLERANCE_MS, random_events, world
from topics.specs import INTERACTIONS

PARTITIONS = 3


@dataclass
class Logged:
    """What is read of a message."""

    where: int
    at: int
    name: bytes | None
    content: bytes | None
    described: list[tuple[str, bytes]]

    def partition(self) -> int:
        return self.where

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes | None:
        return self.name

    def value(self) -> bytes | None:
        return self.content

    def timestamp(self) -> tuple[int, int]:
        return 1, NOW_MS

    def headers(self) -> list[tuple[str, bytes]]:
        return self.described


@dataclass
class Committed:
    """What a version has committed, to be tampered with."""

    log: LoggedEvents
    users: Table
    items: Table
    dead: list[Logged]

    def verdict(self) -> Verdict:
        verdict = Verdict()
        check_dead_letters(verdict, self.log, messages(self.dead))
        check_users(verdict, self.log, self.users, PARTITIONS)
        check_videos(verdict, self.log, self.items, PARTITIONS, set())
        return verdict


def messages(records: list[Logged]) -> Iterable[Message]:
    return cast("Iterable[Message]", records)


@pytest.fixture(scope="module")
def settled() -> Committed:
    state = world(PARTITIONS)
    for number, event in enumerate(random_events(3, 1_500)):
        state.send(event)
        if number % 50 == 0:
            state.append(INTERACTIONS, number % PARTITIONS, b"ann", b"{")
    state.settle()
    log = LoggedEvents(PARTITIONS, 5_000.0, TOLERANCE_MS)
    for partition in state.partitions:
        records = state.log(INTERACTIONS, partition)
        log.take(messages([Logged(partition, r.offset, r.key, r.value, []) for r in records]))
    users, items = (
        {(partition, key): value for partition, stores in state.stores.items() for key, value in stores[n].scan(b"")}
        for n in (0, 1)
    )
    dead = [Logged(0, n, letter.key, letter.value, letter.headers) for n, letter in enumerate(state.dead)]
    return Committed(log, users, items, dead)


@pytest.fixture
def committed(settled: Committed) -> Committed:
    """A copy to tamper with."""
    return replace(settled, users=dict(settled.users), items=dict(settled.items), dead=list(settled.dead))


def test_a_right_state_has_no_difference(committed: Committed) -> None:
    verdict = committed.verdict()
    assert verdict.differences == []
    assert (verdict.lost, verdict.doubled) == (0, 0)
    assert verdict.rows_compared > 50
    assert len(committed.dead) == 30


def any_row(table: Table, prefix: bytes) -> tuple[int, bytes]:
    """The longest row of a kind: it holds something of everything."""
    return max((place for place in table if place[1].startswith(prefix)), key=lambda place: len(table[place]))


def change(table: Table, prefix: bytes, dtype: np.dtype[np.void], alter: Callable[[np.void], None]) -> None:
    place = any_row(table, prefix)
    head = np.frombuffer(table[place][: dtype.itemsize], dtype).copy()
    alter(head[0])
    table[place] = head.tobytes() + table[place][dtype.itemsize :]


def add(column: str, amount: float, index: int | None = None) -> Callable[[np.void], None]:
    def alter(row: np.void) -> None:
        if index is None:
            row[column] += amount
        else:
            row[column][index] += amount

    return alter


def count(table: str, prefix: bytes, dtype: np.dtype[np.void], amount: int) -> Callable[[Committed], None]:
    def tamper(committed: Committed) -> None:
        change(getattr(committed, table), prefix, dtype, add("counts", amount, 1))

    return tamper


def change_total(committed: Committed) -> None:
    place = any_row(committed.users, rows.CUT_KEY)
    cut = rows.decode_cut(committed.users[place])
    cut.totals["ignored"] += 1
    committed.users[place] = rows.encode_cut(cut)


def drop_user(committed: Committed) -> None:
    del committed.users[any_row(committed.users, rows.USER)]


def drop_letter(committed: Committed) -> None:
    committed.dead.pop()


def repeat_letter(committed: Committed) -> None:
    committed.dead.append(committed.dead[0])


@pytest.mark.parametrize(
    ("tamper", "lost", "doubled"),
    [
        pytest.param(count("users", rows.USER, rows._USER, 1), 0, 1, id="a user's event twice"),
        pytest.param(count("users", rows.USER, rows._USER, -1), 1, 0, id="a user's event lost"),
        pytest.param(count("items", rows.ITEM, rows._ITEM, 1), 0, 1, id="a video's event twice"),
        pytest.param(count("items", rows.ITEM, rows._ITEM, -1), 1, 0, id="a video's event lost"),
        pytest.param(change_total, 0, 1, id="a total"),
        pytest.param(drop_letter, 1, 0, id="a dead letter lost"),
        pytest.param(repeat_letter, 0, 1, id="a dead letter twice"),
    ],
)
def test_what_is_lost_or_doubled_is_counted(
    committed: Committed, tamper: Callable[[Committed], None], lost: int, doubled: int
) -> None:
    tamper(committed)
    verdict = committed.verdict()
    assert verdict.differences
    assert (verdict.lost, verdict.doubled) == (lost, doubled)


def test_a_user_without_a_row_has_lost_all_events(committed: Committed) -> None:
    drop_user(committed)
    assert committed.verdict().lost > 20


@pytest.mark.parametrize("column", ["plays", "decayed_at", "first_ms", "last_ms"])
def test_a_videos_numbers_are_compared(committed: Committed, column: str) -> None:
    change(committed.items, rows.ITEM, rows._ITEM, add(column, 2e5))
    assert len(committed.verdict().differences) == 1


def test_a_users_history_and_seen_videos_are_compared(committed: Committed) -> None:
    one, other = sorted(place for place in committed.users if place[1].startswith(rows.USER))[:2]
    size = rows._USER.itemsize
    mine, theirs = committed.users[one], committed.users[other]
    assert mine[size:] != theirs[size:]
    change_bytes = bytearray(mine)
    change_bytes[size] ^= 1  # the flag of the first seen video
    committed.users[one] = bytes(change_bytes)
    assert any("seen" in difference for difference in committed.verdict().differences)
    latest = rows.read_user(mine)["history"][0].encode()
    head, _, tail = mine.rpartition(latest)  # the first one may be the open video
    committed.users[one] = head + b"w" + latest[1:] + tail
    assert any("history" in difference for difference in committed.verdict().differences)


@pytest.mark.parametrize("relative", [1e-5, -1e-5])
def test_a_weight_is_compared_to_a_millionth(committed: Committed, relative: float) -> None:
    place = any_row(committed.items, rows.NEIGHBOURS)
    data = bytearray(committed.items[place])
    weight = np.frombuffer(data, "<f4", 1, rows._LIST.itemsize + 8)
    weight *= np.float32(1 + relative)
    committed.items[place] = bytes(data)
    [difference] = committed.verdict().differences
    assert "covisitation" in difference


def test_a_neighbour_that_is_missing_is_named(committed: Committed) -> None:
    place = any_row(committed.items, rows.NEIGHBOURS)
    committed.items[place] = committed.items[place][: -rows._ENTRY.itemsize]
    assert "missing" in "".join(committed.verdict().differences)


def test_a_row_in_a_foreign_partition_is_named(committed: Committed) -> None:
    partition, key = any_row(committed.items, rows.ITEM)
    committed.items[(partition + 1) % PARTITIONS, key] = committed.items.pop((partition, key))
    assert "partition of" in "".join(committed.verdict().differences)


def test_an_acknowledged_record_that_is_not_in_the_log_is_missing(committed: Committed) -> None:
    known = [dict(offsets) for offsets in committed.log._hashes]
    assert list(committed.log.missing(known)) == []
    known[1][10**9] = 1
    offset = next(iter(known[2]))
    known[2][offset] += 1
    assert list(committed.log.missing(known)) == [
        f"{INTERACTIONS}[1] offset {10**9} was acknowledged and is not in the log",
        f"{INTERACTIONS}[2] offset {offset} was acknowledged and is not in the log",
    ]


@pytest.mark.parametrize("written", [{}, {b"u:ann": b"1", b"u:bob": b"2"}, {b"u:ann": b"other"}])
def test_a_store_holds_what_its_changelog_means(tmp_path: Path, written: dict[bytes, bytes]) -> None:
    store = RocksStore(tmp_path / "users-0")
    store.write(written.items(), 7)
    store.close()
    verdict = Verdict()
    check_stores(verdict, tmp_path, {"users": {(0, b"u:ann"): b"1"}}, 1)
    assert len(verdict.differences) == 1
    check_stores(exact := Verdict(), tmp_path, {"users": {(0, key): value for key, value in written.items()}}, 1)
    assert exact.differences == []
