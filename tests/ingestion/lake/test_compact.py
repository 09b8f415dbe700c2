"""Merging keeps every row, forgetting takes those of erased users alone; cut anywhere, the next one makes it good."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from infra.folder import Folder
from ingestion.lake.compact import compact
from ingestion.lake.errors import LakeError
from ingestion.lake.files import LakeFile
from ingestion.lake.forget import forget
from ingestion.lake.store import Lake
from tests.ingestion.lake.made import HOUR_MS, JUDGE, NOON_MS, URLS, dead, fill, listed, offsets, rows, taken, url_of
from topics.erasures import Erasures
from topics.specs import DEAD, INTERACTIONS, RECOMMENDATIONS

REFUSED_EVENTS = f"refused/topic={INTERACTIONS}"


@pytest.fixture(params=URLS)
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    return Lake(url_of(request.param, tmp_path))


def names(lake: Lake, dataset: str = INTERACTIONS) -> list[tuple[int, int]]:
    return [(file.first, file.last) for file in lake.files() if file.dataset == dataset]


def test_files_of_an_hour_become_one(lake: Lake) -> None:
    records = [taken(n) for n in range(6)] + [taken(n, arrived_ms=NOON_MS + HOUR_MS) for n in range(6, 9)]
    records[1] = records[1]._replace(value=b"{")
    records[4] = records[4]._replace(value=b"[")
    fill(lake, INTERACTIONS, records, [2, 2, 2, 1, 2])
    before = rows(lake, INTERACTIONS), rows(lake, REFUSED_EVENTS)
    assert compact(lake, lake.tidy()) == (7, 3)
    assert names(lake) == [(0, 5), (6, 8)]
    assert names(lake, REFUSED_EVENTS) == [(0, 5)]
    assert (rows(lake, INTERACTIONS), rows(lake, REFUSED_EVENTS)) == before
    assert compact(lake, lake.tidy()) == (0, 0)
    # The lake goes on where it was.
    assert lake.ends(lake.files())[INTERACTIONS, 0] == 9


def test_a_hole_stays_to_be_seen_and_files_are_bounded(lake: Lake) -> None:
    fill(lake, INTERACTIONS, [taken(n) for n in range(4)], [1, 1, 1, 1])
    fill(lake, INTERACTIONS, [taken(n) for n in range(8, 10)], [1, 1])
    compact(lake, lake.tidy(), most_rows=3)
    assert names(lake) == [(0, 2), (3, 3), (8, 9)]


class Cut(Exception):
    """The process ends here."""


@pytest.mark.parametrize(("what", "nth"), [("publish", 1), ("remove", 1), ("remove", 2), ("remove", 3)])
def test_a_merge_that_was_cut_doubles_and_loses_nothing(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, what: str, nth: int
) -> None:
    fill(lake, INTERACTIONS, [taken(n) for n in range(6)], [2, 2, 2])
    original = getattr(Folder, what)
    calls = []

    def cut(*args: object) -> None:
        calls.append(args)
        if len(calls) == nth:
            raise Cut
        original(*args)

    monkeypatch.setattr(Folder, what, cut)
    with pytest.raises(Cut):
        compact(lake, lake.tidy())
    monkeypatch.undo()
    assert set(offsets(lake, INTERACTIONS)) == set(range(6))
    files = lake.tidy()
    assert offsets(lake, INTERACTIONS) == list(range(6))
    assert lake.ends(files)[INTERACTIONS, 0] == 6
    compact(lake, files)
    assert offsets(lake, INTERACTIONS) == list(range(6))
    assert names(lake) == [(0, 5)]


def test_what_is_refused_of_a_range_that_is_not_whole_is_left_alone(lake: Lake) -> None:
    """It is written once more with the range; merged before, it would be there twice."""
    records = [taken(n)._replace(value=b"{") for n in range(4)]
    [_, last] = fill(lake, INTERACTIONS, records, [2, 2])
    lake.folder.remove(last.path)
    assert compact(lake, lake.tidy()) == (0, 0)
    assert names(lake, REFUSED_EVENTS) == [(0, 1), (2, 3)]


def marks(*erased: tuple[str, int]) -> Erasures:
    found = Erasures()
    for user, until in erased:
        found.note(user.encode(), b'{"erased_ms":%d}' % until, until)
    return found


class Users:
    """The topic `users`, one partition: marks in the order of their offsets."""

    def __init__(self, *erased: tuple[str, int]) -> None:
        self.marks = list(erased)

    def read(self, ends: Mapping[int, tuple[int, int]]) -> Erasures:
        return marks(*self.marks[slice(*ends[0])])

    def forget(self, lake: Lake, *, all_: bool = False) -> tuple[int, int]:
        return forget(lake, lake.tidy(), {0: (0, len(self.marks))}, self.read, all_=all_)


def test_an_erased_user_leaves_every_dataset_and_nobody_else_does(lake: Lake) -> None:
    events = [taken(n, user="gone" if n % 3 == 0 else "") for n in range(6)]
    events.append(taken(6, user="gone", at_ms=NOON_MS + 2, arrived_ms=NOON_MS + 9))  # since
    events.append(taken(7, user="gone", at_ms=NOON_MS + 2, arrived_ms=NOON_MS))  # the clock of the phone is ahead
    events.append(taken(8, user="gone")._replace(key=b"other"))  # named by the value alone
    events.append(taken(9)._replace(value=b'{"user_id": "gone", '))
    events.append(taken(10)._replace(value=b"{", key=b"gone"))
    events.append(taken(11)._replace(value=b"{"))
    fill(lake, INTERACTIONS, events, [5, 7])
    fill(lake, RECOMMENDATIONS, [listed(0), listed(1, "gone"), listed(2, "gone", NOON_MS + 5)], [3])
    letters = [dead(0, key=b"gone"), dead(1), dead(2, key=b"gone", arrived_ms=NOON_MS + 5)]
    letters.append(dead(3, b'{"user_id":"gone","at_ms":%d}' % NOON_MS, None, NOON_MS + 5))
    letters.append(dead(4, b'{"user_id":"gone","at_ms":-1}', None, NOON_MS + 5))
    fill(lake, DEAD, letters, [5])
    assert Users(("gone", NOON_MS + 1), ("nobody", NOON_MS + 1)).forget(lake) == (9, 5)
    assert offsets(lake, INTERACTIONS) == [1, 2, 4, 5, 6]
    assert offsets(lake, REFUSED_EVENTS) == [11]
    assert offsets(lake, RECOMMENDATIONS) == [0, 2]
    assert offsets(lake, DEAD) == [1, 2, 4]
    # A file keeps its name, so the lake does not read the range again.
    assert names(lake) == [(0, 4), (5, 11)]
    assert b"gone" not in lake.folder.read("_forgotten.json")


def test_old_files_are_looked_into_for_new_erasures_alone(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(lake, INTERACTIONS, [taken(n) for n in range(10)], [5, 5])
    users = Users(("user1", NOON_MS))
    assert users.forget(lake) == (2, 2)
    opened: list[str] = []
    open_ = Folder.open

    def noted(self: Folder, path: str) -> object:
        opened.append(path)
        return open_(self, path)

    monkeypatch.setattr(Folder, "open", noted)
    assert users.forget(lake) == (0, 0)
    assert opened == []
    # A file that came since has not met the old erasure, as from a producer that was late.
    fill(lake, INTERACTIONS, [taken(n) for n in range(10, 15)], [5])
    assert users.forget(lake) == (1, 1)
    assert len(opened) == 1
    users.marks.append(("user2", NOON_MS))
    assert users.forget(lake) == (3, 3)
    compact(lake, lake.tidy())
    users.marks.append(("user3", NOON_MS))
    assert users.forget(lake) == (3, 1)
    assert users.forget(lake, all_=True) == (0, 0)
    assert sorted({str(row["user_id"]) for row in rows(lake, INTERACTIONS)}) == ["user0", "user4"]


def test_a_topic_of_users_that_was_made_anew_is_read_from_its_beginning(lake: Lake) -> None:
    fill(lake, INTERACTIONS, [taken(n) for n in range(5)], [5])
    Users(("nobody", 1), ("no", 1), ("none", 1)).forget(lake)
    assert Users(("user1", NOON_MS)).forget(lake) == (1, 1)


def test_forgetting_that_was_cut_goes_on_and_counts_each_row_once(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    from ingestion.lake.check import Counted, _read

    fill(lake, INTERACTIONS, [taken(n) for n in range(10)], [5, 5])
    users, written = Users(("user1", NOON_MS)), Folder.publish
    calls = []

    def cut(*args: object) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise Cut
        written(*args)  # type: ignore[arg-type] # as they came

    monkeypatch.setattr(Folder, "publish", cut)
    with pytest.raises(Cut):
        users.forget(lake)
    monkeypatch.undo()
    assert users.forget(lake) == (1, 1)
    counted = Counted(INTERACTIONS, 0)
    assert [_read(lake, file, counted) for file in lake.files()] == [(4, 1), (4, 1)]
    compact(lake, lake.tidy())
    assert [_read(lake, file, counted) for file in lake.files()] == [(8, 2)]
    assert counted.wrong == []


def test_a_file_of_a_later_release_is_not_written_once_more(lake: Lake) -> None:
    from ingestion.lake.tables import Meta, tables_of, write_table

    file = LakeFile(INTERACTIONS, 0, 0, 4, "2026-09-21", "12")
    table, _ = tables_of(INTERACTIONS, 0, [taken(n) for n in range(5)], JUDGE)
    with lake.folder.workspace("run") as work:
        write_table(work / "part", table, Meta(INTERACTIONS, schema=2))
        lake.folder.publish(work / "part", file.path)
    with pytest.raises(LakeError, match="has schema 2, this release reads 1"):
        Users(("user1", NOON_MS)).forget(lake)
