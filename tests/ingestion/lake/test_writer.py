"""Ranges become files once, in a folder and in a memory store, whoever else writes, and wherever a writer was cut."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.folder import Folder
from ingestion.lake.buffers import Bounds, Range, largest
from ingestion.lake.errors import LakeError, LakeTaken
from ingestion.lake.store import ABANDONED_S, Lake
from ingestion.lake.tables import Judge, write_table
from ingestion.lake.writer import CLAIMS, Writer
from tests.ingestion.lake.made import HOUR_MS, JUDGE, NOON_MS, URLS, fill, offsets, taken, url_of
from topics.specs import INTERACTIONS

PLACE = (INTERACTIONS, 0)


@pytest.fixture(params=URLS)
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    return Lake(url_of(request.param, tmp_path))


class Cut(Exception):
    """A writer ends here."""


@pytest.mark.parametrize("calls", [0, 1])
def test_a_range_that_was_cut_is_filled_by_whoever_comes_next(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """After the claim, and after what is refused."""
    records = [taken(0), taken(1)._replace(value=b"{"), taken(2), taken(3)]
    published = Folder.publish
    left = [calls]

    def cut(*args: object, **kwargs: object) -> None:
        if not left[0]:
            raise Cut
        left[0] -= 1
        published(*args, **kwargs)  # type: ignore[arg-type] # as they came

    monkeypatch.setattr(Folder, "publish", cut)
    with pytest.raises(Cut):
        Writer(lake, JUDGE, {}).write(PLACE, 0, records[:3])
    monkeypatch.undo()
    assert offsets(lake, INTERACTIONS) == []
    assert lake.ends(lake.files()).get(PLACE) is None
    writer = Writer(lake, JUDGE, {})
    assert writer.begun(PLACE, 0) == 2
    assert writer.write(PLACE, 0, records[:3]).last == 2
    assert writer.write(PLACE, 3, records[3:]).first == 3
    assert (offsets(lake, INTERACTIONS), offsets(lake, f"refused/topic={INTERACTIONS}")) == ([0, 2, 3], [1])


def test_a_range_that_was_cut_has_each_record_once_whatever_is_refused_since(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = taken(1, at_ms=NOON_MS + 60_000)
    strict, lenient = Judge(1, 0), Judge(1, 600_000)
    monkeypatch.setattr("ingestion.lake.writer.write_table", nth_fails(2))
    with pytest.raises(Cut):
        Writer(lake, strict, {}).write(PLACE, 0, [taken(0), early])
    monkeypatch.undo()
    assert offsets(lake, f"refused/topic={INTERACTIONS}") == [1]
    Writer(lake, lenient, {}).write(PLACE, 0, [taken(0), early])
    assert (offsets(lake, INTERACTIONS), offsets(lake, f"refused/topic={INTERACTIONS}")) == ([0, 1], [])


def nth_fails(nth: int) -> Callable[..., None]:
    """Writing a table, until it is cut."""
    calls = []

    def write(*args: object) -> None:
        calls.append(args)
        if len(calls) == nth:
            raise Cut
        write_table(*args)  # type: ignore[arg-type] # as they came

    return write


def test_of_two_writers_one_ends(lake: Lake) -> None:
    one, other = Writer(lake, JUDGE, {}), Writer(lake, JUDGE, {})
    one.write(PLACE, 0, [taken(0), taken(1)])
    with pytest.raises(LakeTaken, match=r"another `headrace lake run` has written interactions\[0\] from 0 on"):
        other.write(PLACE, 0, [taken(0), taken(1), taken(2)])
    assert offsets(lake, INTERACTIONS) == [0, 1]


def test_a_writer_that_slept_after_its_claim_writes_what_is_there_already(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeper = Writer(lake, JUDGE, {})
    tables = "ingestion.lake.writer.tables_of"
    from ingestion.lake.tables import tables_of

    def sleep(*args: object) -> object:
        monkeypatch.setattr(tables, tables_of)
        other = Writer(lake, JUDGE, {})
        assert other.begun(PLACE, 0) == 1
        other.write(PLACE, 0, [taken(0), taken(1)])
        other.write(PLACE, 2, [taken(2)])
        return tables_of(*args)  # type: ignore[arg-type] # as they came

    monkeypatch.setattr(tables, sleep)
    sleeper.write(PLACE, 0, [taken(0), taken(1)])
    assert offsets(lake, INTERACTIONS) == [0, 1, 2]
    with pytest.raises(LakeTaken):
        sleeper.write(PLACE, 2, [taken(2), taken(3)])
    assert offsets(lake, INTERACTIONS) == [0, 1, 2]


def test_claims_are_bounded(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CLAIMS > 10
    monkeypatch.setattr("ingestion.lake.writer.CLAIMS", 3)
    fill(lake, INTERACTIONS, [taken(n) for n in range(6)], [1] * 3)
    fill(lake, INTERACTIONS, [taken(n) for n in range(3, 6)], [1] * 3)
    assert lake.claims()[PLACE] == [3, 4, 5]


def test_a_range_of_another_topic_is_not_filled_from_this_one(lake: Lake) -> None:
    from ingestion.lake.store import Claim

    lake.claim(PLACE, 0, Claim(1, "2026-09-21", "12", "another"))
    with pytest.raises(LakeError, match="begun from another topic interactions"):
        Writer(lake, JUDGE, {INTERACTIONS: "this"}).write(PLACE, 0, [taken(0), taken(1)])


def test_a_claim_that_cannot_be_read_is_named(lake: Lake) -> None:
    lake.folder.write("_claims/interactions/0-5.json", b'{"last":7,"date":"../x","hour":"12"}')
    with pytest.raises(LakeError, match=r"_claims/interactions/0-5\.json cannot be read"):
        Writer(lake, JUDGE, {}).begun(PLACE, 5)


def test_one_at_a_time_rewrites(lake: Lake) -> None:
    with lake.turn("rewrite", "rewrites") as renew:
        renew()
        with (
            pytest.raises(LakeTaken, match="another `headrace lake` command rewrites"),
            lake.turn("rewrite", "rewrites"),
        ):
            pass
        with lake.turn("run", "fills"):
            renew()
    with lake.turn("rewrite", "rewrites"):
        pass


def test_a_mark_that_was_left_behind_is_taken_over_and_its_owner_ends(tmp_path: Path) -> None:
    lake = Lake(url_of("memory", tmp_path))
    left = {"host": "elsewhere", "pid": os.getpid(), "at_s": time.time(), "who": "x"}
    lake.folder.write("_locks/rewrite.json", json.dumps(left).encode())
    with pytest.raises(LakeTaken, match="on elsewhere"), lake.turn("rewrite", "rewrites"):
        pass
    lake.folder.write("_locks/rewrite.json", json.dumps(left | {"at_s": time.time() - ABANDONED_S - 1}).encode())
    with lake.turn("rewrite", "rewrites") as renew:
        lake.folder.write("_locks/rewrite.json", json.dumps(left).encode())
        with pytest.raises(LakeTaken):
            renew()
    assert lake.folder.read("_locks/rewrite.json")


def test_a_listing_that_a_merge_falls_into_is_made_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    files = fill(lake, INTERACTIONS, [taken(n) for n in range(4)], [2, 2])
    listed = Folder.files
    calls = []

    def torn(self: Folder, under: str = "") -> list[str]:
        found = listed(self, under)
        calls.append(under)
        return found[:-1] if len(calls) == 1 else found

    monkeypatch.setattr(Folder, "files", torn)
    assert lake.files() == files


def test_a_store_that_is_none_is_named() -> None:
    with pytest.raises(LakeError, match="HEADRACE_LAKE='nowhere://x' cannot be used"):
        Lake("nowhere://x")


def test_ranges_end_with_the_hour_and_at_their_bounds() -> None:
    waiting = Range(0)
    assert not waiting.ends_before(taken(0))
    waiting.add(taken(0))
    assert not waiting.ends_before(taken(1, arrived_ms=NOON_MS + HOUR_MS - 1))
    assert waiting.ends_before(taken(1, arrived_ms=NOON_MS + HOUR_MS))
    assert waiting.ends_before(taken(1, arrived_ms=NOON_MS - 1))
    assert not waiting.is_over(Bounds(rows=2, seconds=3600))
    assert waiting.is_over(Bounds(rows=1, seconds=3600))
    assert waiting.is_over(Bounds(rows=2, seconds=0.0))
    begun = Range(0, begun=5)
    begun.add(taken(3))
    # It has to end where it was to end, whatever the bounds say.
    assert not begun.is_over(Bounds(rows=1, seconds=0.0))
    assert not begun.may_end
    assert largest({("a", 0): waiting, ("a", 1): begun}) == ("a", 0)
    assert begun.ends_before(taken(6))
    begun.add(taken(5))
    assert begun.is_over(Bounds())
