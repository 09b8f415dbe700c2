"""Features of the ranker against a slow reference, and what strangers, broken numbers and colliding codes make of them."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pytest

from online_models.base import EMPTY, FACTORS, HISTORY, Context, Float32Array, Float64Array, Int32Array, ModelError
from online_models.content import CATEGORIES, STEPS, ContentModel
from online_models.features import FEATURES, MISSING, USER_INPUTS, Described, Models, Votes, describe
from online_models.neighbours import COVISITATION, MARKOV, Neighbours
from online_models.popularity import HALF_LIVES, Popularity
from online_models.segments import BUCKETS, Segments
from online_models.sequential_mf import SequentialMF

ITEMS = 60
PLAYED = 54
"""Rows from here on have no event."""
TICKS_PER_MS = 1e-3
NOW = 700.0
RATE = 0.25
SHOWN = 11
DAY_MS = 86_400_000.0


@dataclass
class Video:
    """A catalogue entry."""

    title: str = ""
    categories: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    author: str | None = None
    language: str | None = None
    duration_seconds: float | None = None
    description: str = ""
    published_ms: int | None = None
    embedding: bytes | None = None


def catalogue() -> list[Video]:
    """Some with nothing, some with more categories than are told apart, names in any case."""
    videos = []
    for row in range(ITEMS):
        named = [f"kind{row % 4}", f"Kind{row % 7}", f"theme{row % 5}", "all", f"kind{row % 3}"][: row % 6]
        author = (f"author{row % 9}", f"AUTHOR{row % 9}", None)[row % 3]
        duration = None if row % 8 == 0 else 0.0 if row % 8 == 1 else 3.0 * row
        videos.append(Video(f"video {row}", tuple(named), (), author, (None, "de", "EN")[row % 3], duration))
    return videos


VIDEOS = catalogue()


@dataclass
class World:
    """Models that have learned 600 events of five users, and how often each video was shown."""

    models: Models
    counts: Int32Array

    def described(
        self, asked: Context, rows: Int32Array | None = None, votes: Votes | None = None, rate: float = RATE
    ) -> Described:
        rows = np.arange(ITEMS, dtype=np.int32) if rows is None else rows
        votes = Votes.of(self.models, asked, ITEMS) if votes is None else votes
        return describe(self.models, asked, rows, votes, self.counts, SHOWN, TICKS_PER_MS, rate)


@pytest.fixture
def world() -> World:
    rng = np.random.default_rng(2)
    popularity = Popularity(ITEMS)
    made = Models(
        popularity,
        Neighbours(ITEMS, COVISITATION, popularity),
        Neighbours(ITEMS, MARKOV, popularity),
        SequentialMF(ITEMS, 1),
        ContentModel(ITEMS),
        Segments(ITEMS),
    )
    everything = np.arange(ITEMS, dtype=np.int32)
    made.mf.admit(everything, everything.astype(np.uint64))
    made.content.publish(everything, VIDEOS)
    n = 600
    rows = (rng.zipf(1.4, n) % PLAYED).astype(np.int32)
    histories = np.full((n, HISTORY), EMPTY, np.int32)
    for e in range(n):
        recent = rows[max(0, e - HISTORY) : e][::-1]
        histories[e, : len(recent)] = recent
    ticks = np.arange(n, dtype=np.float64)
    slots = (np.arange(n) % 5).astype(np.int32)
    made.covisitation.apply(made.covisitation.additions(histories, rows, ticks))
    made.markov.apply(made.markov.additions(histories, rows, ticks))
    p, pacc = np.zeros((5, FACTORS), np.float32), np.zeros(5, np.float32)
    made.mf.learn_batch(p, pacc, slots, histories, rows, everything, ITEMS, 1)
    popularity.apply(rows, np.ones(n), ticks, (ticks / TICKS_PER_MS).astype(np.int64))
    shown = rng.integers(0, PLAYED, 900).astype(np.int32)
    popularity.show(shown, rng.uniform(0.0, 900.0, 900))
    # Of two kinds of people one keeps to the even rows; a third says nothing of themselves.
    made.segments.apply(rows, PEOPLE[np.where(np.arange(n) % 3 == 0, 2, rows % 2)], ticks)
    made.segments.weigh(NOW, ITEMS)
    counts = np.zeros((ITEMS, 12), np.int32)
    # Some were played more often than they were shown: by those who had them from elsewhere.
    np.add.at(counts[:, SHOWN], shown, 1)
    counts[:, 3] = 77
    return World(made, counts)


PEOPLE = np.array([[5, 1 << 63], [6, 1], [0, 0]], np.uint64)
"""Segments of two kinds of people, of three buckets each, one in common; and of nobody in particular."""


def context(history: Iterable[int] = (), passed: Iterable[int] = (), kind: int = 2) -> Context:
    p = np.linspace(-0.2, 0.3, FACTORS).astype(np.float32)
    return Context(np.array([*history], np.int32), p, NOW, np.array([*passed], np.int32), segments=PEOPLE[kind])


CONTEXTS = {
    "stranger": context(),
    "stranger who passed over": context((), (3, 1, 57)),
    "stranger of a kind": context(kind=1),
    "acquainted": context((5,)),
    "friend": context((1, 12, 3, 41, 7, 9, 16), (2, 20, 11), 0),
    "twenty": context(range(23, 3, -1), (30, 31, 2, 33, 58, 35, 36, 37), 1),
    "nothing described": context((0, 48), (0,)),
}


def faded(count: float, elapsed: float, half_life: float) -> float:
    return float(count * 2.0 ** -min(max(elapsed, 0.0) / half_life, 100.0))


def shares(asked: Context) -> list[float]:
    return [0.9**lag for lag in range(len(asked.history))]


def mean(values: Iterable[float], weights: Iterable[float]) -> float:
    pairs = list(zip(values, weights, strict=True))
    total = sum(weight for _, weight in pairs)
    return sum(value * weight for value, weight in pairs) / total if total else 0.0


def of_same(asked: Context, own: list[str], theirs: list[list[str]]) -> float:
    """Share of the recent items that have a name in common, once for each such name."""
    same = [float(sum(a == b for a in own for b in names)) for names in theirs]
    return mean(same, shares(asked))


def kinds(row: int) -> list[str]:
    return [name.casefold() for name in VIDEOS[row].categories[:CATEGORIES]]


def one(name: str | None) -> list[str]:
    return [] if name is None else [name.casefold()]


def reference(world: World, asked: Context) -> tuple[Float64Array, list[float]]:
    """Every feature of every item, and the user's inputs, in plain Python from what the models say in public."""
    models, rows = world.models, np.arange(ITEMS, dtype=np.int32)
    scored = {model.name: model.score_many(asked, rows).astype(float).tolist() for model in models}
    levels = models.popularity.levels(asked.ticks, ITEMS).astype(float).tolist()
    plays, first, last = (models.popularity.columns[name].tolist() for name in ("plays", "first_ms", "last_ms"))
    shown, shown_at = (models.popularity.columns[name].tolist() for name in ("shown", "shown_at"))
    q, b = models.mf.columns["q"].astype(float), models.mf.columns["b"].astype(float).tolist()
    vectors = models.content.columns["content"].astype(float) / STEPS
    history, weights = asked.history.tolist(), shares(asked)

    def age(row: int, since: list[int]) -> float:
        return math.log1p(asked.ticks - since[row] * TICKS_PER_MS) if plays[row] else 0.0

    def seconds(row: int) -> float:
        return math.log1p(VIDEOS[row].duration_seconds or 0.0)

    usual_count = mean([math.log1p(plays[row]) for row in history], weights)
    usual_age = mean([age(row, first) for row in history], weights)
    timed = [lag for lag, row in enumerate(history) if seconds(row)]
    usual_duration = mean([seconds(history[lag]) for lag in timed], [weights[lag] for lag in timed])
    norm = math.sqrt(sum(0.9**lag for lag in range(len(asked.passed))))
    counts, at = (models.segments.columns[name].astype(float) for name in ("counts", "at"))
    now = np.array([[faded(n, asked.ticks - at[row], 30_000.0) for n in counts[row]] for row in range(ITEMS)])
    buckets = [b for b in range(BUCKETS) if int(asked.segments[b // 64]) >> b % 64 & 1]

    def lift(row: int) -> float:
        if not buckets:
            return MISSING
        total = now[:, -1].sum()
        ratios = [(now[row, b] + 5) / (now[row, -1] * now[:, b].sum() / total + 5) for b in buckets]
        return sum(map(math.log, ratios)) / len(buckets)

    out = []
    for row in range(ITEMS):
        count, tries = math.log1p(plays[row]), max(float(world.counts[row, SHOWN]), plays[row])
        f = {
            f"popularity_{half_life:.0f}": math.log(level + 0.1)
            for half_life, level in zip(HALF_LIVES, levels[row], strict=True)
        }
        f |= {"count": count, "unplayed": 1 / (1 + plays[row])}
        f["age"] = age(row, first) if plays[row] else MISSING
        f["idle"] = age(row, last) if plays[row] else MISSING
        for name in ("covisitation", "markov"):
            vote, total, best = scored[name][row], sum(scored[name]), max(scored[name])
            f[name] = math.log((vote / total if total else 0.0) + 3e-3)
            f[f"{name}_of_best"] = vote / best if best else 0.0
            f[f"{name}_named"] = float(vote > 0)
        f |= {"factors": scored["sequential_mf"][row] - b[row], "bias": b[row], "content": scored["content"][row]}
        f["content_last"] = float(vectors[row] @ vectors[history[0]]) if history else 0.0
        f["category"] = of_same(asked, kinds(row), [kinds(held) for held in history])
        f["category_last"] = float(bool(history) and bool(set(kinds(row)) & set(kinds(history[0]))))
        f["author"] = of_same(asked, one(VIDEOS[row].author), [one(VIDEOS[held].author) for held in history])
        f["language"] = of_same(asked, one(VIDEOS[row].language), [one(VIDEOS[held].language) for held in history])
        f["duration"] = -abs(seconds(row) - usual_duration) if seconds(row) and timed else MISSING
        f["usual_popularity"] = -abs(count - usual_count) if history else 0.0
        f["usual_age"] = -abs(age(row, first) - usual_age) if history and plays[row] else MISSING
        f["count_by_usual"] = count * usual_count
        f["play_rate"] = math.log((plays[row] + 20 * RATE) / (tries + 20) / RATE)
        for half_life, times in zip(HALF_LIVES, shown[row], strict=False):
            f[f"shown_{half_life:.0f}"] = math.log(faded(times, asked.ticks - shown_at[row], half_life) + 0.1)
        away = sum(
            (0.9**lag * float(q[row] @ q[held]) for lag, held in enumerate(asked.passed.tolist()) if held != row), 0.0
        )
        f["passed"] = away / norm if norm else 0.0
        f["segment"] = lift(row)
        out.append([f[name] for name in FEATURES])
    hour = 2 * math.pi * (asked.ticks / TICKS_PER_MS % DAY_MS) / DAY_MS
    return np.array(out), [len(history) / 20, usual_count / 5, usual_age / 10, math.sin(hour), math.cos(hour)]


@pytest.mark.parametrize("asked", CONTEXTS.values(), ids=CONTEXTS)
def test_every_feature_is_what_the_models_say_of_the_item(world: World, asked: Context) -> None:
    expected, user = reference(world, asked)
    described = world.described(asked)
    assert described.items.shape == (ITEMS, len(FEATURES))
    assert described.user.shape == (len(USER_INPUTS),)
    assert not described.broken.any()
    for column, name in enumerate(FEATURES):
        np.testing.assert_allclose(described.items[:, column], expected[:, column], rtol=2e-5, atol=2e-5, err_msg=name)
    np.testing.assert_allclose(described.user, user, rtol=1e-5, atol=1e-6)


def test_no_feature_of_a_friend_is_the_same_for_all(world: World) -> None:
    """Or the reference above would be equal to anything."""
    described = world.described(CONTEXTS["twenty"])
    assert [name for name, spread in zip(FEATURES, np.ptp(described.items, axis=0), strict=True) if spread < 0.01] == []
    assert np.abs(described.user).min() > 1e-4


def test_candidates_are_described_as_they_are_among_all(world: World) -> None:
    """In any order and more than once: the rows are a choice, the shares are of everything."""
    asked = CONTEXTS["friend"]
    rows = np.array([40, 3, 11, 59, 3], np.int32)
    everything, some = world.described(asked), world.described(asked, rows)
    np.testing.assert_array_equal(some.items, everything.items[rows])
    np.testing.assert_array_equal(some.user, everything.user)
    assert world.described(asked, rows[:0]).items.shape == (0, len(FEATURES))


@pytest.mark.parametrize("asked", CONTEXTS.values(), ids=CONTEXTS)
def test_describing_is_pure(world: World, asked: Context) -> None:
    before = {model.name: {key: column.copy() for key, column in model.columns.items()} for model in world.models}
    votes, counts = Votes.of(world.models, asked, ITEMS), world.counts.copy()
    kept = [np.copy(each) for each in (*votes, asked.history, asked.p, asked.passed)]
    first, again = world.described(asked, votes=votes), world.described(asked, votes=votes)
    for one_, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one_, other)
    for model in world.models:
        for key, column in model.columns.items():
            np.testing.assert_array_equal(column, before[model.name][key], err_msg=key)
    for now, was in zip((*votes, asked.history, asked.p, asked.passed), kept, strict=True):
        np.testing.assert_array_equal(now, was)
    np.testing.assert_array_equal(world.counts, counts)


def column(described: Described, name: str) -> Float32Array:
    return described.items[:, FEATURES.index(name)]


def test_of_a_stranger_nothing_is_said_but_what_is_popular(world: World) -> None:
    described = world.described(CONTEXTS["stranger"])
    personal = (
        "covisitation_of_best", "covisitation_named", "markov_of_best", "markov_named", "content", "content_last",
        "category", "category_last", "author", "language", "usual_popularity",
        "count_by_usual", "passed",
    )  # fmt: skip
    for name in personal:
        assert not column(described, name).any(), name
    for name in ("duration", "usual_age", "segment"):
        assert (column(described, name) == np.float32(MISSING)).all(), name
    for name in ("covisitation", "markov"):
        np.testing.assert_allclose(column(described, name), math.log(3e-3), rtol=1e-6)
    assert described.user[:3].tolist() == [0.0, 0.0, 0.0]


def test_an_item_that_was_passed_over_is_compared_with_the_others_only(world: World) -> None:
    q = world.models.mf.columns["q"]
    assert float(q[7] @ q[7]) > 0.01
    alone = column(world.described(context((), (7,))), "passed")
    assert alone[7] == pytest.approx(0.0, abs=1e-6)
    assert alone[8] == pytest.approx(float(q[8] @ q[7]), rel=1e-4)
    both = column(world.described(context((), (7, 8))), "passed")
    assert both[7] == pytest.approx(0.9 * float(q[7] @ q[8]) / math.sqrt(1.9), rel=1e-4, abs=1e-6)
    assert both[8] == pytest.approx(float(q[7] @ q[8]) / math.sqrt(1.9), rel=1e-4, abs=1e-6)


def test_without_a_mean_rate_no_item_has_one(world: World) -> None:
    assert not column(world.described(CONTEXTS["friend"], rate=0.0), "play_rate").any()


def test_a_rate_is_pulled_towards_the_mean(world: World) -> None:
    world.counts[:, SHOWN] = 0
    plays = world.models.popularity.columns["plays"]
    plays[:4] = [0, 0, 5, 500]
    world.counts[:4, SHOWN] = [0, 1_000, 20, 1_000]
    expected = [math.log(5 / 20 / RATE), math.log(5 / 1_020 / RATE), 0.0, math.log(505 / 1_020 / RATE)]
    rates = column(world.described(CONTEXTS["friend"]), "play_rate")[:4]
    np.testing.assert_allclose(rates, expected, rtol=1e-4, atol=1e-6)


POISONED = 2
"""An item that votes name, in nobody's history."""
READER = context((1, 4, 3, 41, 7), (20, 11), 0)
CLAMPED = {("popularity", "decayed_at"), ("popularity", "shown_at"), ("segments", "at")}
"""An infinite time is one long ago or one to come: its numbers stay finite."""
UNKNOWN = {("content", "duration", "nan"), ("content", "duration", "-inf")}
"""Neither is above 0: the video counts as one without a duration."""
OF_OTHERS = {"acc", "weight", "weight_at"}
"""Says nothing of the item itself."""


def float_columns() -> list[tuple[str, str]]:
    made = (
        Popularity(1),
        Neighbours(1, COVISITATION),
        Neighbours(1, MARKOV),
        SequentialMF(1, 1),
        ContentModel(1),
        Segments(1),
    )
    return [
        (model.name, name)
        for model in made
        for name, values in model.columns.items()
        if np.issubdtype(values.dtype, np.floating)
    ]


def put(world: World, model: str, name: str, row: int, value: float) -> None:
    [columns] = [each.columns for each in world.models if each.name == model]
    columns[name][row] = value


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(("model", "name"), float_columns())
def test_what_is_not_finite_breaks_its_own_item_alone(world: World, model: str, name: str, value: str) -> None:
    votes = Votes.of(world.models, READER, ITEMS)
    assert all(named[POISONED] > 0.0 for named in votes)
    before = world.described(READER)
    put(world, model, name, POISONED, float(value))
    after = world.described(READER)
    sound = name in OF_OTHERS or (model, name, value) in UNKNOWN or ((model, name) in CLAMPED and value != "nan")
    assert np.isfinite(after.items).all()
    assert np.flatnonzero(after.broken).tolist() == ([] if sound else [POISONED])
    np.testing.assert_array_equal(after.user, before.user)
    if name == "plays":
        # Votes are divided by plays: without them there is no vote for it, and the others share what is left.
        before = world.described(READER, votes=Votes(*(without(named, POISONED) for named in votes)))
    np.testing.assert_allclose(others(after), others(before), rtol=1e-6, atol=1e-6)


def without(votes: Float32Array, row: int) -> Float32Array:
    left = votes.copy()
    left[row] = 0.0
    return left


def others(described: Described) -> Float32Array:
    return np.delete(described.items, POISONED, axis=0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("table", ["covisitation", "markov"])
def test_a_link_that_is_not_finite_breaks_its_own_item_alone(world: World, table: str, value: float) -> None:
    [columns] = [each.columns for each in world.models if each.name == table]
    source = READER.history[0]
    link = columns["neighbour"][source] == POISONED
    assert link.any()
    columns["weight"][source, link] = value
    votes = Votes.of(world.models, READER, ITEMS)
    after = world.described(READER)
    assert np.isfinite(after.items).all()
    assert np.flatnonzero(after.broken).tolist() == [POISONED]
    left = world.described(READER, votes=votes._replace(**{table: without(getattr(votes, table), POISONED)}))
    np.testing.assert_allclose(others(after), others(left), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("held", [4, 20], ids=["history", "passed"])
@pytest.mark.parametrize(("model", "name"), [each for each in float_columns() if each[1] not in OF_OTHERS])
def test_what_is_not_finite_in_a_history_breaks_no_other_item(
    world: World, model: str, name: str, held: int, value: float
) -> None:
    """Or one broken row would empty the lists of all who have watched it."""
    put(world, model, name, held, value)
    after = world.described(READER)
    assert np.isfinite(after.items).all()
    assert np.isfinite(after.user).all()
    assert set(np.flatnonzero(after.broken).tolist()) <= {held}


@pytest.mark.parametrize("value", [math.nan, math.inf, 3e38])
def test_numbers_are_finite_whatever_the_users_own_vector_is(world: World, value: float) -> None:
    described = world.described(READER._replace(p=np.full(FACTORS, value, np.float32)))
    assert np.isfinite(described.items).all()
    assert np.isfinite(described.user).all()


@pytest.mark.parametrize("bad", [-1, ITEMS, 2**31 - 1])
@pytest.mark.parametrize("what", ["rows", "history", "passed"])
def test_a_row_out_of_range_is_refused(world: World, what: str, bad: int) -> None:
    votes = Votes.of(world.models, READER, ITEMS)
    named = np.array([3, bad], np.int32)
    asked = {"history": READER._replace(history=named), "passed": READER._replace(passed=named)}.get(what, READER)
    with pytest.raises(ModelError, match="row"):
        world.described(asked, named if what == "rows" else None, votes)


def test_a_row_beyond_the_votes_is_refused(world: World) -> None:
    votes = Votes.of(world.models, READER, ITEMS - 10)
    rows = np.array([ITEMS - 11], np.int32)
    assert world.described(READER, rows, votes).items.shape == (1, len(FEATURES))
    with pytest.raises(ModelError, match="row"):
        world.described(READER, rows + np.int32(1), votes)


@pytest.mark.parametrize("ticks", [math.nan, math.inf, -math.inf])
def test_a_time_that_is_not_finite_is_refused(world: World, ticks: float) -> None:
    with pytest.raises(ModelError, match="ticks"):
        world.described(READER._replace(ticks=ticks), votes=Votes.of(world.models, READER, ITEMS))


def test_tables_of_other_lengths_are_refused(world: World) -> None:
    votes = Votes.of(world.models, READER, ITEMS)
    with pytest.raises(ModelError, match="length"):
        world.described(READER, votes=votes._replace(markov=votes.markov[:-1]))


@pytest.mark.parametrize("ticks", [-1e300, -1e9, 0.0, 1e9, 1e300])
def test_any_finite_time_gives_finite_numbers(world: World, ticks: float) -> None:
    described = world.described(READER._replace(ticks=ticks))
    assert np.isfinite(described.items).all()
    assert np.isfinite(described.user).all()
    assert not described.broken.any()


def with_codes(world: World, codes: Iterable[int], per_item: int = CATEGORIES) -> None:
    """Give the items these category codes in turn, the same to author and language."""
    columns, endless = world.models.content.columns, itertools.cycle(codes)
    columns["categories"][:] = 0
    for row in range(ITEMS):
        given = [next(endless) for _ in range(per_item)]
        columns["categories"][row, :per_item] = given
        columns["author"][row] = columns["language"][row] = given[0]


@pytest.mark.parametrize("codes", [[1 + 512 * n for n in range(80)], range(65_535 - 79, 65_536), range(1, 81)])
def test_eighty_categories_are_told_apart_wherever_they_fall(world: World, codes: Iterable[int]) -> None:
    """512 places: the first codes all fall into one of them."""
    with_codes(world, codes)
    described = world.described(context(range(20)))
    total = sum(0.9**lag for lag in range(20))
    # Codes come again after 20 items.
    expected = [0.9 ** (row % 20) / total for row in range(ITEMS)]
    np.testing.assert_allclose(column(described, "category"), [4 * share for share in expected], rtol=1e-5)
    np.testing.assert_allclose(column(described, "author"), expected, rtol=1e-5)
    np.testing.assert_allclose(column(described, "language"), expected, rtol=1e-5)
    assert np.flatnonzero(column(described, "category_last")).tolist() == [0, 20, 40]


def test_a_code_that_falls_beside_those_of_the_history_has_no_share(world: World) -> None:
    with_codes(world, [1 + 256 * n for n in range(4 * ITEMS)])
    described = world.described(context(range(20)))
    assert column(described, "category")[:20].all()
    assert not column(described, "category")[20:].any()


def test_no_category_is_not_a_category_in_common(world: World) -> None:
    with_codes(world, [0])
    described = world.described(context(range(20)))
    for name in ("category", "category_last", "author", "language"):
        assert not column(described, name).any(), name


def test_a_duration_of_nothing_is_one_unknown(world: World) -> None:
    durations = world.models.content.columns["duration"]
    durations[:] = 0.0
    durations[[3, 9, 12]] = [2.0, 4.0, 7.0]
    found = column(world.described(context((1, 3, 5, 9))), "duration")
    usual = (0.9 * 2.0 + 0.9**3 * 4.0) / (0.9 + 0.9**3)
    assert found[12] == pytest.approx(-(7.0 - usual), rel=1e-5)
    assert np.flatnonzero(found != np.float32(MISSING)).tolist() == [3, 9, 12]
    assert (column(world.described(context((1, 5))), "duration") == np.float32(MISSING)).all()


def test_links_that_have_all_but_faded_are_no_links(world: World) -> None:
    votes = Votes(np.zeros(ITEMS, np.float32), np.full(ITEMS, 1e-44, np.float32))
    none = world.described(READER, votes=Votes(np.zeros(ITEMS, np.float32), np.zeros(ITEMS, np.float32)))
    faded_ = world.described(READER, votes=votes)
    np.testing.assert_array_equal(column(faded_, "markov"), column(none, "markov"))
    assert np.isfinite(faded_.items).all()
