"""One rule for what is positive, whether asked for one event or for an array."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topics.interactions import EVENTS, Event, event_code
from topics.signals import (
    DEFAULT_SIGNALS,
    SEEN_EVENTS,
    TABLE,
    BadSignals,
    Signal,
    SignalTable,
    is_positive,
    marks_seen,
    signal,
)

seconds = st.none() | st.sampled_from([0.0, 1.0, 17.999, 18.0, 18.001]) | st.floats(0, 1e6)


@pytest.mark.parametrize(
    ("watch_s", "duration_s", "positive"),
    [
        (None, None, True),  # "watched", and no more is known
        (None, 60.0, True),
        (10.0, 10.0, True),
        (25.0, 10.0, True),  # looped
        (9.99, 10.0, False),
        (18.0, 18.0, True),
        (17.99, 60.0, False),
        (18.0, 600.0, True),
        (18.0, None, True),
        (17.99, None, False),
        (18.0, 0.0, True),  # some logs write an unknown duration as 0
        (5.0, 0.0, False),
        (0.0, None, False),
    ],
)
def test_long_watch(watch_s: float | None, duration_s: float | None, positive: bool) -> None:
    assert is_positive("watch", watch_s, duration_s) is positive


def test_the_events_that_are_positive_and_seen() -> None:
    assert {event for event in EVENTS if is_positive(event, 1.0, 60.0)} == {"like", "share", "comment", "follow"}
    assert {event for event in EVENTS if marks_seen(event, 1.0, 60.0)} == {
        *("like", "share", "comment", "follow", "watch", "dislike")
    }
    assert not marks_seen("impression")
    assert {"watch", "dislike"} == SEEN_EVENTS


def test_weights_rise_and_negatives_are_negative() -> None:
    rising: list[Event] = ["like", "share", "follow", "comment"]
    weights = [signal(event).weight for event in rising]
    assert weights == sorted(weights)
    assert weights[0] > signal("watch", 30.0, 60.0).weight > 0
    for event in ("skip", "dislike", "impression"):
        assert signal(event).target == 0
        assert signal(event).weight > 0
    assert signal("watch", 5.9, 60.0) == TABLE["short_watch"]
    assert signal("watch", 6.0, 60.0).weight == 0
    assert signal("watch", 0.5, None).weight == 0  # no share is known of a video of unknown length


def test_every_event_has_a_row() -> None:
    assert set(EVENTS) <= set(TABLE)


@given(st.lists(st.tuples(st.sampled_from(EVENTS), seconds, seconds)))
def test_arrays_agree_with_scalars(events: list[tuple[Event, float | None, float | None]]) -> None:
    codes = np.array([event_code(event) for event, _, _ in events], dtype=np.uint8)
    watch_s = np.array([math.nan if watch is None else watch for _, watch, _ in events], dtype=np.float64)
    duration_s = np.array([math.nan if duration is None else duration for _, _, duration in events], dtype=np.float64)
    found = DEFAULT_SIGNALS.signals(codes, watch_s, duration_s)
    assert found.positive.tolist() == [is_positive(*event) for event in events]
    assert found.seen.tolist() == [marks_seen(*event) for event in events]
    assert found.targets.tolist() == [signal(*event).target for event in events]
    assert found.weights.tolist() == [np.float32(signal(*event).weight) for event in events]


def test_an_operator_changes_what_events_say_and_the_rest_stays() -> None:
    text = """{"long_watch_seconds": 30, "skipped_share": 0.5, "events": {"view": {"target": 1, "weight": 0.2},
        "like": {"target": 0, "weight": 0}}}"""
    table = SignalTable.parse(text)
    assert table.signal("watch", 20.0, 60.0) == TABLE["short_watch"]
    assert table.signal("watch", 30.0, 60.0) == TABLE["long_watch"]
    assert table.signal("view") == Signal(1, 0.2)
    assert table.signal("share") == TABLE["share"]
    codes = np.array([event_code("view"), event_code("like")], np.uint8)
    unknown = np.full(2, np.nan)
    assert table.signals(codes, unknown, unknown).positive.tolist() == [True, False]
    assert not is_positive("view"), "the default table stays as it was"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "truncated"),
        ("[]", "Expected"),
        ('{"events": {"likes": {"target": 1, "weight": 1}}}', "there is no event likes"),
        ('{"events": {"like": {"target": 2, "weight": 1}}}', "Invalid enum value"),
        ('{"events": {"like": {"target": 1, "weight": -1}}}', ">= 0"),
        ('{"events": {"like": {"target": 1}}}', "weight"),
        ('{"long_watch_seconds": 0}', "> 0"),
        ('{"watch": 1}', "unknown field"),
        (
            '{"events": {"long_watch": {"target": 0, "weight": 1}, "like": {"target": 0, "weight": 1},'
            ' "share": {"target": 0, "weight": 1}, "follow": {"target": 0, "weight": 1}, "comment": {"target": 1, "weight": 0}}}',
            "nothing would be learned",
        ),
    ],
)
def test_a_table_that_cannot_be_used_says_why(text: str, reason: str) -> None:
    with pytest.raises(BadSignals, match=reason):
        SignalTable.parse(text)
