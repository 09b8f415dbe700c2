"""Popularity against its definition, a sum of faded events, and its behaviour with unordered time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from online_models.base import Context, Float64Array, ModelError
from online_models.popularity import HALF_LIVES, LONG_AGO, NEVER, SHOWN_HALF_LIVES, Popularity

EVENTS = st.lists(st.tuples(st.integers(0, 3), st.floats(0.1, 9), st.floats(-1e5, 1e5)), min_size=1, max_size=40)


def reference(events: list[tuple[int, float, float]], ticks: float, rows: int) -> Float64Array:
    """Sum every event's weight, faded to `ticks`."""
    out = np.zeros((rows, len(HALF_LIVES)))
    for row, weight, at in events:
        out[row] += [weight * 2.0 ** (-(ticks - at) / half_life) for half_life in HALF_LIVES]
    return out


def learned(events: list[tuple[int, float, float]], rows: int = 4) -> Popularity:
    """Apply `events` as one batch."""
    model = Popularity(rows)
    row, weight, at = zip(*events, strict=True)
    at_ms = np.array(at).astype(np.int64) + 100_000
    model.apply(np.array(row, np.int32), np.array(weight, np.float64), np.array(at, np.float64), at_ms)
    return model


@given(EVENTS)
@settings(deadline=None)
def test_levels_are_the_faded_sum_in_any_order(events: list[tuple[int, float, float]]) -> None:
    latest = max(at for _, _, at in events)
    # Below 1e-30 of its weight an event stops fading, so tiny remainders may differ.
    for order in (events, events[::-1], sorted(events, key=lambda event: event[2])):
        np.testing.assert_allclose(
            learned(order).levels(latest, 4), reference(events, latest, 4), rtol=1e-4, atol=1e-25
        )
    plays = np.bincount([row for row, _, _ in events], [weight for _, weight, _ in events], 4)
    np.testing.assert_allclose(learned(events).columns["plays"], plays)


def test_a_batch_equals_its_events_one_by_one() -> None:
    rng = np.random.default_rng(1)
    events = [(int(rng.integers(4)), 1.0, float(at)) for at in rng.normal(0, 5_000, 200)]
    single = Popularity(4)
    for row, weight, at in events:
        arguments = np.array([row], np.int32), np.array([weight]), np.array([at]), np.array([int(at) + 100_000])
        single.apply(*arguments)
    batch = learned(events)
    for name, column in batch.columns.items():
        np.testing.assert_array_equal(single.columns[name], column, err_msg=name)


def test_an_older_event_counts_less_and_moves_no_clock() -> None:
    model = learned([(0, 1.0, 3_000.0), (0, 1.0, 0.0)])
    assert model.columns["decayed_at"][0] == 3_000.0
    assert model.columns["decayed"][0, 1] == pytest.approx(1.5)


@pytest.mark.parametrize("at", [-1e300, -1e15, 1e15, 1e300])
def test_extreme_times_neither_overflow_nor_make_nan(at: float) -> None:
    model = Popularity(1)
    for ticks in (at, 0.0, at):
        model.apply(np.zeros(1, np.int32), np.ones(1), np.array([ticks]), np.zeros(1, np.int64))
    for read in (at, 0.0, -at):
        levels = model.levels(read, 1)
        assert np.isfinite(levels).all()
        assert (levels <= 3.0).all()


def test_a_reader_behind_the_latest_event_sees_no_growth() -> None:
    model = learned([(0, 1.0, 1e6)])
    np.testing.assert_allclose(model.levels(0.0, 1), 1.0)


def test_first_and_last_event_times() -> None:
    model = Popularity(2)
    model.apply(np.zeros(3, np.int32), np.ones(3), np.arange(3.0), np.array([50, 20, 90]))
    assert model.columns["first_ms"].tolist() == [20, NEVER]
    assert model.columns["last_ms"].tolist() == [90, NEVER]


@pytest.mark.parametrize(
    ("row", "weight", "ticks"), [(2, 1.0, 0.0), (-1, 1.0, 0.0), (0, 1.0, np.nan), (0, np.nan, 0.0), (0, 0.0, 0.0)]
)
def test_a_bad_event_is_refused_and_the_batch_changes_nothing(row: int, weight: float, ticks: float) -> None:
    model = Popularity(2)
    with pytest.raises(ModelError):
        model.apply(np.array([0, row], np.int32), np.array([1.0, weight]), np.array([0.0, ticks]), np.array([1, 1]))
    assert model.columns["plays"].tolist() == [0.0, 0.0]


def test_arrays_of_different_length_are_refused() -> None:
    with pytest.raises(ModelError, match="length"):
        Popularity(2).apply(np.zeros(2, np.int32), np.ones(1), np.zeros(2), np.zeros(2, np.int64))


def test_score_many_is_the_middle_half_life() -> None:
    model = learned([(0, 1.0, 0.0), (1, 3.0, 0.0)])
    scores = model.score_many(
        Context(np.empty(0, np.int32), np.zeros(32, np.float32), 3_000.0), np.array([1, 0], np.int32)
    )
    np.testing.assert_allclose(scores, [1.5, 0.5])


SHOWN = st.lists(st.tuples(st.integers(0, 3), st.floats(-1e5, 1e5)), min_size=1, max_size=40)


def shown(events: list[tuple[int, float]], rows: int = 4) -> Popularity:
    """Show `events` as one batch."""
    model = Popularity(rows)
    row, at = zip(*events, strict=True)
    model.show(np.array(row, np.int32), np.array(at, np.float64))
    return model


@given(SHOWN)
@settings(deadline=None)
def test_what_was_shown_is_the_faded_sum_in_any_order(events: list[tuple[int, float]]) -> None:
    latest = max(at for _, at in events)
    expected = reference([(row, 1.0, at) for row, at in events], latest, 4)[:, :SHOWN_HALF_LIVES]
    for order in (events, events[::-1], sorted(events, key=lambda event: event[1])):
        columns = shown(order).columns
        elapsed = latest - columns["shown_at"][:, None]
        faded = columns["shown"] * 2.0 ** (-elapsed / np.array(HALF_LIVES[:SHOWN_HALF_LIVES]))
        np.testing.assert_allclose(faded, expected, rtol=1e-4, atol=1e-25)
        np.testing.assert_allclose(shown(order).shown_lately(latest, 4), expected[:, 0], rtol=1e-4, atol=1e-25)
    assert columns["shown"].dtype == np.float32


def test_showing_one_by_one_is_showing_a_batch_and_counts_no_play() -> None:
    rng = np.random.default_rng(1)
    events = [(int(rng.integers(4)), float(at)) for at in rng.normal(0, 5_000, 200)]
    single, batch = Popularity(4), shown(events)
    for row, at in events:
        single.show(np.array([row], np.int32), np.array([at]))
    untouched = Popularity(4)
    for name, column in batch.columns.items():
        np.testing.assert_array_equal(single.columns[name], column, err_msg=name)
        if name not in ("shown", "shown_at"):
            np.testing.assert_array_equal(column, untouched.columns[name], err_msg=name)


def test_plays_and_what_was_shown_have_clocks_of_their_own() -> None:
    model = learned([(0, 1.0, 6_000.0)])
    model.show(np.zeros(1, np.int32), np.array([0.0]))
    assert model.columns["shown_at"][0] == 0.0
    assert model.shown_lately(300.0, 1).tolist() == [0.5]
    np.testing.assert_allclose(model.levels(6_000.0, 1), 1.0)


def test_something_shown_earlier_counts_less_and_moves_no_clock() -> None:
    model = shown([(0, 3_000.0), (0, 2_700.0)])
    assert model.columns["shown_at"][0] == 3_000.0
    np.testing.assert_allclose(model.columns["shown"][0], [1.5, 1.0 + 2.0**-0.1], rtol=1e-6)
    # A reader behind it sees no growth.
    np.testing.assert_allclose(model.shown_lately(-1e6, 1), 1.5)


def test_what_was_shown_long_ago_stops_fading() -> None:
    model = shown([(0, 0.0)])
    least = np.float32(2.0**-LONG_AGO)
    assert model.shown_lately(1e12, 1).tolist() == [least]
    assert model.shown_lately(0.0, 0).shape == (0,)


@pytest.mark.parametrize("at", [-1e300, -1e15, 1e15, 1e300])
def test_showing_at_extreme_times_neither_overflows_nor_makes_nan(at: float) -> None:
    model = shown([(0, at), (0, 0.0), (0, at)], 1)
    for read in (at, 0.0, -at):
        assert np.isfinite(model.shown_lately(read, 1)).all()
        assert model.shown_lately(read, 1)[0] <= 3.0


@pytest.mark.parametrize(("row", "ticks"), [(2, 0.0), (-1, 0.0), (0, np.nan), (0, np.inf)])
def test_showing_what_is_not_there_is_refused_and_changes_nothing(row: int, ticks: float) -> None:
    model = Popularity(2)
    with pytest.raises(ModelError):
        model.show(np.array([0, row], np.int32), np.array([0.0, ticks]))
    assert not model.columns["shown"].any()
    with pytest.raises(ModelError, match="length"):
        model.show(np.zeros(2, np.int32), np.zeros(1))
