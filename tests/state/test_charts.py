"""Charts against brute force, and when they are made."""

import numpy as np
import pytest

from online_models.popularity import HALF_LIVES, Popularity
from state.charts import EVERY, EVERY_SHARE, LENGTH, Charts
from state.engine import Engine, EngineOptions
from state.types import BoolArray, Float64Array, Int32Array
from topics.catalog import Video
from topics.evidence import SHOWN

N = 300
NOW = 4_000.0


def counted(n: int = N, seed: int = 1) -> tuple[Popularity, list[tuple[int, float]], list[tuple[int, float]]]:
    """Counts, and the plays and showings that made them; a fifth of the rows has neither."""
    rng = np.random.default_rng(seed)
    used = n - n // 5
    plays = [
        (int(row), float(at)) for row, at in zip(rng.zipf(1.2, 2_000) % used, rng.uniform(0, NOW, 2_000), strict=True)
    ]
    shown = [
        (int(row), float(at)) for row, at in zip(rng.integers(0, used, 3_000), rng.uniform(0, NOW, 3_000), strict=True)
    ]
    popularity = Popularity(n)
    rows, at = np.array([row for row, _ in plays], np.int32), np.array([at for _, at in plays])
    popularity.apply(rows, np.ones(len(rows)), at, at.astype(np.int64))
    popularity.show(np.array([row for row, _ in shown], np.int32), np.array([at for _, at in shown]))
    return popularity, plays, shown


def faded(events: list[tuple[int, float]], half_life: float, ticks: float, n: int = N) -> Float64Array:
    out = np.zeros(n)
    for row, at in events:
        out[row] += 2.0 ** (-(ticks - at) / half_life)
    return out


def check(chart: Int32Array, levels: Float64Array, active: BoolArray, length: int = LENGTH) -> None:
    """The chart is the most popular active rows that have been played at all, in order."""
    assert chart.dtype == np.int32
    usable = np.flatnonzero(active & (levels > 0))
    assert len(chart) == min(len(usable), length)
    assert set(chart.tolist()) <= set(usable.tolist())
    assert len(set(chart.tolist())) == len(chart)
    # By their levels: two rows may have nearly the same.
    np.testing.assert_allclose(levels[chart], np.sort(levels[usable])[::-1][: len(chart)], rtol=1e-4)


def test_charts_are_the_most_popular_active_rows_by_each_half_life() -> None:
    popularity, plays, shown = counted()
    active = np.random.default_rng(2).random(N) < 0.7
    charts = Charts()
    charts.make(popularity, active, NOW)
    assert len(charts.most) == len(HALF_LIVES) + 1
    for chart, half_life in zip(charts.most, HALF_LIVES, strict=False):
        check(chart, faded(plays, half_life, NOW), active)
    check(charts.most[-1], faded(shown, HALF_LIVES[0], NOW), active)
    # They are different charts.
    assert len({tuple(chart.tolist()) for chart in charts.most}) == 4


def test_rows_beyond_those_in_use_are_in_no_chart() -> None:
    popularity, plays, _ = counted()
    charts = Charts()
    charts.make(popularity, np.ones(50, np.bool_), NOW)
    check(charts.most[0], faded(plays, HALF_LIVES[0], NOW)[:50], np.ones(50, np.bool_))


def test_a_chart_has_a_bound_and_keeps_the_best() -> None:
    n = 3 * LENGTH
    popularity = Popularity(n)
    rows = np.random.default_rng(3).permutation(n).astype(np.int32)
    popularity.apply(rows, np.arange(1, n + 1, dtype=np.float64), np.zeros(n), np.zeros(n, np.int64))
    charts = Charts()
    charts.make(popularity, np.ones(n, np.bool_), 0.0)
    for chart in charts.most[:-1]:
        assert chart.tolist() == rows[::-1][:LENGTH].tolist()
    assert len(charts.most[-1]) == 0


def test_equal_rows_are_charted_by_their_number() -> None:
    popularity = Popularity(9)
    popularity.apply(np.array([7, 2, 5], np.int32), np.ones(3), np.zeros(3), np.zeros(3, np.int64))
    charts = Charts()
    charts.make(popularity, np.ones(9, np.bool_), 0.0)
    assert charts.most[0].tolist() == [2, 5, 7]


def test_nothing_played_makes_empty_charts() -> None:
    charts = Charts()
    charts.make(Popularity(5), np.ones(5, np.bool_), 0.0)
    assert [chart.tolist() for chart in charts.most] == [[]] * 4


def made(popularity: Popularity) -> Charts:
    charts = Charts()
    charts.make(popularity, np.ones(N, np.bool_), NOW)
    return charts


@pytest.mark.parametrize(("n", "due_at"), [(N, EVERY), (2_500, EVERY), (100_000, int(EVERY_SHARE * 100_000))])
def test_charts_are_due_after_enough_positives(n: int, due_at: int) -> None:
    charts = made(counted()[0])
    for _ in range(2):
        assert not charts.due(n)
        charts.note(due_at - 1)
        assert not charts.due(n)
        charts.note(1)
        assert charts.due(n)
        charts.make(counted()[0], np.ones(N, np.bool_), NOW)


def test_the_first_positive_makes_charts() -> None:
    charts = Charts()
    assert not charts.due(N)
    charts.note(1)
    assert charts.due(N)


# In the engine


def engine() -> Engine:
    fresh = Engine(EngineOptions(partitions=1, max_videos=1_000), b"test")
    fresh.publish([(f"v{n}", Video(title=f"v{n}", hidden=n == 3)) for n in range(20)])
    return fresh


def play(of: Engine, *rows: int, at_ms: int = 1_700_000_000_000) -> None:
    of.count_positives(np.array(rows, np.int32), np.full(len(rows), at_ms))


def test_the_engine_makes_charts_at_the_first_positive_and_then_when_due() -> None:
    state = engine()
    play(state, 5)
    assert state.charts.most[0].tolist() == [5]
    for number in range(EVERY - 1):
        play(state, 6 + number % 4)
        assert state.charts.most[0].tolist() == [5], number
    play(state, 5, 5, 3)
    assert state.charts.most[0].tolist()[0] == 6
    assert sorted(state.charts.most[0].tolist()) == [5, 6, 7, 8, 9], "not what is hidden"


def test_batches_of_any_size_make_charts_at_the_same_positives() -> None:
    """Where a batch ends on the moment that they are due."""
    rows = np.random.default_rng(1).integers(4, 20, 1 + 3 * EVERY).tolist()
    single, batched = engine(), engine()
    for row in rows:
        play(single, row)
    play(batched, rows[0])
    for start in range(1, len(rows), EVERY):
        play(batched, *rows[start : start + EVERY])
    for one, other in zip(single.charts.most, batched.charts.most, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(single.charts.most[0]) == 16


def test_what_was_hidden_since_is_in_the_chart_until_it_is_made_again() -> None:
    state = engine()
    play(state, *([5] * 3 + [6] * 2 + [7]))
    state.publish([("v5", Video(title="v5", hidden=True))])
    assert state.charts.most[0].tolist() == [5, 6, 7]
    play(state, *([7] * EVERY))
    assert state.charts.most[0].tolist() == [7, 6]


def test_the_play_rate_is_first_positives_a_time_shown() -> None:
    state = engine()
    assert state.play_rate == 0.0
    play(state, 4, 5, 6)
    assert state.play_rate == 0.0, "nothing was shown yet"
    state.count_shown(np.array([4, 4, 4, 4, 9, 9, 9, 9, 9, 9, 9, 9], np.int32), np.full(12, 1_700_000_000_000))
    assert state.play_rate == 3 / 12
    assert state.popularity.columns["shown"][[4, 9], 0].tolist() == [4.0, 8.0]
    play(state, 9)
    assert state.play_rate == 4 / 12
    # It counts what the rows count, so that a worker that has read them knows it.
    state.replica.count(np.array([4], np.int32), np.array([SHOWN], np.uint8))
    state.take_rows([])
    assert state.play_rate == 4 / 1


def test_the_play_rate_is_that_of_the_rows_after_a_deletion_too() -> None:
    """As it is after a restart, which sums up what is left."""
    state = engine()
    play(state, *([4] * 6), 5)
    shown = np.array([4] * 4 + [5] * 8, np.int32)
    state.count_shown(shown, np.full(12, 1_700_000_000_000))
    state.replica.count(shown, np.full(12, SHOWN, np.uint8))
    state.unpublish("v4")
    lived = state.play_rate
    state.take_rows([])
    assert lived == state.play_rate == 1 / 8
