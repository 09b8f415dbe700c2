"""The served score against its definition, and what it does with strangers, candidates and broken numbers."""

import math

import numpy as np
import pytest

from online_models.base import EMPTY, FACTORS, HISTORY, Context, Float64Array, ModelError
from online_models.blend import FEATURES, BlendWeights, Components, Models, components, contributions, features, merge
from online_models.content import ContentModel, Vocabulary, terms
from online_models.neighbours import COVISITATION, MARKOV, Neighbours
from online_models.popularity import Popularity
from online_models.sequential_mf import SequentialMF

ITEMS = 30


@pytest.fixture(scope="module")
def models() -> Models:
    """Models that have learned 600 events of five users."""
    rng = np.random.default_rng(2)
    popularity = Popularity(ITEMS)
    made = Models(
        popularity,
        Neighbours(ITEMS, COVISITATION, popularity),
        Neighbours(ITEMS, MARKOV, popularity),
        SequentialMF(ITEMS, 1),
        ContentModel(ITEMS),
    )
    everything = np.arange(ITEMS, dtype=np.int32)
    made.mf.admit(everything, everything.astype(np.uint64))
    vocabulary = Vocabulary()
    videos = [terms(title=f"video {row}", categories=[f"kind{row % 4}"]) for row in range(ITEMS)]
    made.content.describe(everything, vocabulary.vectors(videos, np.ones(ITEMS, np.bool_)))
    n = 600
    rows = (rng.zipf(1.4, n) % (ITEMS - 3)).astype(np.int32)
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
    popularity.apply(rows, np.ones(n), ticks, np.arange(n))
    return made


def context(*history: int) -> Context:
    return Context(np.array(history, np.int32), np.full(FACTORS, 0.1, np.float32), 700.0)


def reference(models: Models, asked: Context, weights: BlendWeights) -> Float64Array:
    """Score every item in plain Python from each model's own `score_many`."""
    rows = np.arange(ITEMS, dtype=np.int32)
    scored = {model.name: model.score_many(asked, rows).astype(float).tolist() for model in models}
    levels = models.popularity.levels(asked.ticks, ITEMS).astype(float).tolist()
    use = weights.of(len(asked.history)).astype(float).tolist()
    out = []
    for row in range(ITEMS):
        bias = float(models.mf.columns["b"][row])
        values = [scored["sequential_mf"][row] - bias, bias]
        for name in ("covisitation", "markov"):
            total = sum(scored[name])
            values.append(math.log((scored[name][row] / total if total else 0.0) + 3e-3))
        values += [math.log(level + 0.1) for level in levels[row]]
        values.append(scored["content"][row])
        out.append(sum(weight * value for weight, value in zip(use, values, strict=True)))
    return np.array(out)


@pytest.mark.parametrize("history", [(), (3,), (1, 2, 3, 4, 5, 6, 7)], ids=["stranger", "acquainted", "friend"])
def test_the_served_score_is_the_weighted_sum_of_features(models: Models, history: tuple[int, ...]) -> None:
    asked = context(*history)
    given = components(models, asked, ITEMS)
    blended = merge(given, BlendWeights(), len(history))
    np.testing.assert_allclose(blended.scores, reference(models, asked, BlendWeights()), rtol=1e-4, atol=1e-4)
    assert blended.scores.dtype == np.float32
    assert blended.not_a_number == 0
    parts = contributions(given, BlendWeights(), len(history))
    assert parts.shape == (len(FEATURES), ITEMS)
    np.testing.assert_allclose(parts.sum(axis=0), blended.scores, rtol=1e-4, atol=1e-4)


def test_candidates_score_as_they_do_among_all(models: Models) -> None:
    asked = context(1, 2, 3, 4, 5)
    rows = np.array([20, 3, 11, 29], np.int32)
    everything = components(models, asked, ITEMS)
    expected = merge(everything, BlendWeights(), 5).scores[rows]
    candidates = components(models, asked, ITEMS, rows)
    np.testing.assert_allclose(merge(candidates, BlendWeights(), 5).scores, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(merge(everything.take(rows), BlendWeights(), 5).scores, expected, rtol=1e-5, atol=1e-5)


def test_blending_is_pure(models: Models) -> None:
    asked = context(1, 2)
    before = {model.name: {key: column.copy() for key, column in model.columns.items()} for model in models}
    given = components(models, asked, ITEMS)
    raw = given.raw.copy()
    first = merge(given, BlendWeights(), 2).scores
    np.testing.assert_array_equal(first, merge(given, BlendWeights(), 2).scores)
    np.testing.assert_array_equal(given.raw, raw)
    for model in models:
        for key, column in model.columns.items():
            np.testing.assert_array_equal(column, before[model.name][key], err_msg=key)


@pytest.mark.parametrize("feature", range(len(FEATURES)), ids=FEATURES)
def test_what_is_not_a_number_ranks_last_and_is_counted(models: Models, feature: int) -> None:
    given = components(models, context(1, 2, 3, 4, 5), ITEMS)
    raw = given.raw.copy()
    raw[feature, [4, 9]] = np.nan
    blended = merge(given._replace(raw=raw), BlendWeights(np.ones((3, len(FEATURES)), np.float32)), 5)
    assert blended.not_a_number == 2
    assert sorted(np.argsort(blended.scores)[:2].tolist()) == [4, 9]
    assert np.isfinite(np.delete(blended.scores, [4, 9])).all()


def test_weights_change_with_the_length_of_the_history() -> None:
    weights = BlendWeights(np.repeat(np.arange(3, dtype=np.float32), len(FEATURES)).reshape(3, -1))
    assert [int(weights.of(length)[0]) for length in (0, 1, 4, 5, 20)] == [0, 1, 1, 2, 2]


def test_a_stranger_gets_what_is_popular(models: Models) -> None:
    scores = merge(components(models, context(), ITEMS), BlendWeights(), 0).scores
    assert int(scores.argmax()) == int(models.popularity.columns["plays"].argmax())


def test_no_score_at_all_is_neutral() -> None:
    given = Components(np.zeros((len(FEATURES), 3), np.float32), 0.0, 0.0)
    assert np.isfinite(features(given)).all()
    assert np.ptp(merge(given, BlendWeights(), 5).scores) == 0.0


@pytest.mark.parametrize("bad", [np.zeros((2, 8), np.float32), np.full((3, 8), np.nan, np.float32)])
def test_weights_of_another_shape_or_not_finite_are_refused(
    bad: np.ndarray[tuple[int, int], np.dtype[np.float32]],
) -> None:
    with pytest.raises(ModelError):
        BlendWeights(bad)


def test_links_that_have_all_but_faded_are_no_links() -> None:
    raw = np.zeros((len(FEATURES), 3), np.float32)
    raw[FEATURES.index("markov")] = 1e-44
    none = features(Components(np.zeros_like(raw), 0.0, 0.0))
    np.testing.assert_array_equal(features(Components(raw, 0.0, 3e-44)), none)
