"""What counts as positive can be overridden, and an unknown word is named."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ingestion.bad_file import BadRow
from ingestion.event_table import EventTable, UnknownRule, build_event_table
from topics.interactions import EVENTS


def table() -> EventTable:
    """One event of every kind, the watch a long one, in reversed order of time."""
    n = len(EVENTS)
    ids = pa.array([str(number) for number in range(n)])
    return build_event_table(
        event_ids=ids,
        user_ids=ids,
        video_ids=ids,
        codes=np.arange(n, dtype=np.uint8),
        at_ms=np.arange(n, 0, -1, dtype=np.int64),
        watch_seconds=np.full(n, 20.0),
        duration_seconds=np.full(n, np.nan),
        labels={"mine": np.arange(n) == 0},
        rows=n,
        bad_row=lambda row, why: pytest.fail(f"{row}: {why}"),
    )


def positives(rule: str) -> set[str]:
    found = table()
    return {EVENTS[code] for code in found.codes[found.positive(rule)]}


def test_rules() -> None:
    assert positives("default") == {"like", "share", "comment", "follow", "watch"}
    assert positives("mine") == {"impression"}  # labels are sorted with the events
    assert positives("like,long_watch") == {"like", "watch"}
    assert positives("view") == {"view"}


@pytest.mark.parametrize("rule", ["", "applause", "like,applause", "like,,share", "mine,like"])
def test_an_unknown_rule_is_named(rule: str) -> None:
    with pytest.raises(UnknownRule, match="default, mine, or a comma-separated list"):
        table().positive(rule)


def test_parts_of_the_table() -> None:
    found = table()
    every = list(found.interactions())
    assert len(found) == len(every) == len(EVENTS)
    assert [event.at_ms for event in every] == sorted(event.at_ms for event in every)
    assert list(found.interactions(2, 5)) == every[2:5]
    assert list(found.interactions(8, 99)) == every[8:]


def test_a_bad_event_is_given_to_the_reader_to_name() -> None:
    with pytest.raises(BadRow, match="1: video_id must be 1 to 128 bytes"):
        build_event_table(
            event_ids=pa.array(["a", "b"]),
            user_ids=pa.array(["a", "b"]),
            video_ids=pa.array(["a", ""]),
            codes=np.zeros(2, np.uint8),
            at_ms=np.zeros(2, np.int64),
            watch_seconds=np.full(2, np.nan),
            duration_seconds=np.full(2, np.nan),
            rows=2,
            bad_row=lambda row, why: BadRow(Path("x"), row, why),
        )
