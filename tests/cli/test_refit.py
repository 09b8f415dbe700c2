"""The batch baselines: their formulas, that they see nothing early, and that they are not held back."""

import sys

import numpy as np
import pytest
from implicit.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from cli import refit
from cli.refit import BASELINES, TIE, AlsRefit, EaseRefit, RefitUnavailable, make
from state.types import BoolArray, Float64Array, Int64Array

NAMES = sorted(BASELINES)
EASE = {"lambda": 5.0, "decay": 1.0}
ALS = {"factors": 8.0, "regularisation": 2.0, "alpha": 10.0, "decay": 1.0}
Pairs = tuple[Int64Array, Int64Array]


@pytest.fixture(autouse=True)
def small_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four settings each, for the choice among many is the same code and takes seconds."""
    monkeypatch.setattr(refit, "DECAYS", (1.0, 0.7))
    monkeypatch.setattr(EaseRefit, "fits", ({"lambda": 5.0}, {"lambda": 50.0}))
    monkeypatch.setattr(AlsRefit, "fits", tuple({**ALS, "factors": factors} for factors in (8.0, 4.0)))


def planted(m: int, users: int = 80, videos: int = 120, groups: int = 4, seed: int = 3) -> Pairs:
    """First positives of users who mostly like videos of their own group; some videos are more popular than others."""
    rng = np.random.default_rng(seed)
    popularity = 1.0 / np.arange(1.0, videos // groups + 1.0)
    pairs: dict[tuple[int, int], None] = {}
    while len(pairs) < m:
        user = int(rng.integers(users))
        group = user % groups if rng.random() < 0.9 else int(rng.integers(groups))
        rank = int(rng.choice(videos // groups, p=popularity / popularity.sum()))
        pairs.setdefault((user, rank * groups + group))
    chosen = np.array(list(pairs), np.int64)
    return chosen[:, 0], chosen[:, 1]


def learned(model: refit.Refit, pairs: Pairs) -> refit.Refit:
    for user, row in zip(*(column.tolist() for column in pairs), strict=True):
        model.learn(user, row)
    return model


def positives(pairs: Pairs) -> Float64Array:
    """The binary matrix of users and videos."""
    matrix = np.zeros((pairs[0].max() + 1, pairs[1].max() + 1))
    matrix[pairs] = 1.0
    return matrix


def steck(x: Float64Array, ridge: float) -> Float64Array:
    """EASE as the paper's own listing has it."""
    inverse = np.linalg.inv(x.T @ x + ridge * np.eye(x.shape[1]))
    weights: Float64Array = inverse / -np.diag(inverse)
    weights[np.diag_indices(len(weights))] = 0.0
    return weights


def test_ease_scores_by_the_formula_of_the_paper() -> None:
    pairs = planted(640)
    model = learned(EaseRefit(640, EASE, 1), pairs)
    assert model.refits == 16
    assert model.refit_seconds > 0.0
    x = positives(pairs)
    expected = x @ steck(x, 5.0)
    for user in range(len(x)):
        np.testing.assert_allclose(model.scores(user, x.shape[1]), expected[user], atol=1e-5)


def test_ease_has_no_opinion_of_less_active_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refit, "EASE_VIDEOS", 30)
    pairs = planted(640)
    model = learned(EaseRefit(640, EASE, 1), pairs)
    x = positives(pairs)
    counts = x.sum(axis=0)
    active = np.sort(np.argsort(-counts, kind="stable")[:30])
    expected = np.zeros_like(x)
    expected[:, active] = x[:, active] @ steck(x[:, active], 5.0)
    scores = np.array([model.scores(user, x.shape[1]) for user in range(len(x))])
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    inactive = np.setdiff1d(np.arange(x.shape[1]), active)
    np.testing.assert_array_equal(scores[0, inactive], counts[inactive] * (TIE / 640))


def test_a_history_counts_up_to_now_and_its_latest_most() -> None:
    users, rows = planted(640)
    model = learned(EaseRefit(6_400, {**EASE, "decay": 0.5}, 1), (users, rows))
    at_refit = model.refits
    history = rows[users == 0].tolist()
    for row in [row for row in range(120) if row not in history][:2]:
        history.append(row)
        model.learn(0, row)
    assert model.refits == at_refit
    weights = 0.5 ** np.arange(len(history))[::-1]
    x = positives((users[:400], rows[:400]))  # what the one refit, at a sixteenth, has seen
    known = [place for place, row in enumerate(history) if row < x.shape[1]]
    expected = weights[known] @ steck(x, 5.0)[[history[place] for place in known]]
    np.testing.assert_allclose(model.scores(0, x.shape[1]), expected, atol=1e-5)


@pytest.mark.parametrize("decay", [1.0, 0.7])
def test_als_folds_a_history_in_as_implicit_does(decay: float) -> None:
    pairs = planted(640)
    model = AlsRefit(640, {**ALS, "decay": decay}, 1)
    learned(model, pairs)
    x = csr_matrix(positives(pairs).astype(np.float32))
    with threadpool_limits(1, "blas"):
        theirs = AlternatingLeastSquares(
            factors=8, regularization=2.0, alpha=10.0, use_gpu=False, num_threads=1, random_state=1
        )
        theirs.item_factors = model._factors
        for user in range(x.shape[0]):
            history = pairs[1][pairs[0] == user]
            weights = (decay ** np.arange(len(history))[::-1]).astype(np.float32)
            columns = np.searchsorted(model._known, history)
            row = csr_matrix((weights, (np.zeros(len(history), np.int64), columns)), shape=(1, len(model._known)))
            expected = model._factors @ theirs.recalculate_user(0, row)
            np.testing.assert_allclose(model.scores(user, x.shape[1])[model._known], expected, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_planted_tastes_are_found(name: str) -> None:
    users, rows = planted(2_400)
    model = make(name, users, rows, 1)
    hits = popular = 0
    counts, seen = np.zeros(120), np.zeros((80, 120), np.bool_)
    for place, (user, row) in enumerate(zip(users.tolist(), rows.tolist(), strict=True)):
        if place >= 600:
            hits += is_listed(model.scores(user, 120), seen[user], row)
            popular += is_listed(counts, seen[user], row)
        model.learn(user, row)
        counts[row] += 1.0
        seen[user, row] = True
    assert hits > 1.5 * popular > 0


def is_listed(scores: Float64Array, seen: BoolArray, row: int) -> bool:
    return int((scores[~seen] > scores[row]).sum()) < 10


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_later_changes_nothing_before(name: str) -> None:
    users, rows = planted(800)
    other_users, other_rows = users.copy(), rows.copy()
    other_users[500:], other_rows[500:] = users[500:] + 1000, rows[500:] + 37
    one, other = make(name, users, rows, 1), make(name, other_users, other_rows, 1)
    assert one.settings == other.settings
    for place in range(500):
        np.testing.assert_array_equal(one.scores(int(users[place]), 160), other.scores(int(users[place]), 160))
        one.learn(int(users[place]), int(rows[place]))
        other.learn(int(users[place]), int(rows[place]))
    assert one.refits == 10
    changed = make(name, other_users[::-1], rows, 1)
    learned(one, (users[500:], rows[500:]))
    learned(changed, (other_users[::-1], rows))
    assert not np.array_equal(one.scores(0, 160), changed.scores(0, 160))


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_of_the_best_recall_are_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of settings that shrink everything away, which leaves popularity, and of settings that do not."""
    useless = {"lambda": 1e12} if name == "ease" else {**ALS, "regularisation": 1e12}
    useful = {"lambda": 5.0} if name == "ease" else ALS
    monkeypatch.setattr(BASELINES[name], "fits", (useless, useful, useless))
    users, rows = planted(2_400)
    told: list[tuple[int, int]] = []
    model = make(name, users, rows, 1, lambda done, of: told.append((done, of)))
    assert {key: model.settings[key] for key in useful if key != "decay"} == {
        key: value for key, value in useful.items() if key != "decay"
    }
    assert model.refits == 0
    assert told == sorted(told)
    assert told[-1] == (1_800, 1_800)


def test_settings_are_tried_on_what_occurred_before_and_is_new_to_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[int], int]] = []

    def listening(_scores: Float64Array, allowed: BoolArray, row: int) -> bool:
        asked.append((np.flatnonzero(allowed).tolist(), row))
        return False

    monkeypatch.setattr(refit, "_is_listed", listening)
    users, rows = planted(640)
    make("ease", users, rows, 1)
    expected = [
        (sorted(set(rows[:place].tolist()) - set(rows[:place][users[:place] == users[place]].tolist())), rows[place])
        for place in range(40, 160)
    ]
    assert asked[:240:2] == expected  # each for two decays
    assert asked[240::2] == expected


def test_a_video_is_listed_if_fewer_than_ten_are_ahead() -> None:
    scores, allowed = np.arange(20.0), np.ones(20, np.bool_)
    assert [row for row in range(20) if refit._is_listed(scores, allowed, row)] == list(range(10, 20))
    allowed[15] = False
    assert [row for row in range(20) if refit._is_listed(scores, allowed, row)] == [9, *range(10, 15), *range(16, 20)]
    assert [row for row in range(20) if refit._is_listed(np.zeros(20), allowed, row)] == list(range(10))


def test_at_most_so_many_positives_are_ranked_for_each_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refit, "TUNE_RANKED", 50)
    asked: list[int] = []
    scores = EaseRefit.scores

    def listening(model: EaseRefit, user: int, n: int) -> Float64Array:
        asked.append(user)
        return scores(model, user, n)

    monkeypatch.setattr(EaseRefit, "scores", listening)
    users, rows = planted(2_400)
    settings = make("ease", users, rows, 1).settings
    assert len(asked) == 4 * 50
    assert np.isin(asked, users[150:600]).all()
    assert make("ease", users, rows, 1).settings == settings
    make("ease", users[:400], rows[:400], 1)
    assert len(asked) == 3 * 4 * 50
    make("ease", users[:80], rows[:80], 1)
    assert len(asked) == 3 * 4 * 50 + 4 * 15  # all from the first refit on


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_scores(name: str) -> None:
    pairs = planted(640)

    def scores(seed: int) -> Float64Array:
        model = learned(make(name, *pairs, seed), pairs)
        return np.array([model.scores(user, 120) for user in range(80)])

    np.testing.assert_array_equal(scores(1), scores(1))
    assert np.array_equal(scores(1), scores(2)) == (name == "ease")  # which has nothing random


@pytest.mark.parametrize("name", NAMES)
def test_scoring_writes_nothing(name: str) -> None:
    pairs = planted(640)
    model = learned(make(name, *pairs, 1), pairs)
    before = model.scores(3, 120)
    for user in (3, 999, 4):
        model.scores(user, 5_000)
    np.testing.assert_array_equal(model.scores(3, 120), before)
    np.testing.assert_array_equal(model.scores(3, 50), before[:50])
    np.testing.assert_array_equal(model.scores(3, 5_000)[120:], 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_popularity_orders_what_nothing_is_known_of(name: str) -> None:
    pairs = planted(640)
    model = learned(make(name, *pairs, 1), pairs)
    counts = positives(pairs).sum(axis=0)
    stranger = model.scores(999, 120)
    np.testing.assert_array_equal(np.argsort(-stranger, kind="stable"), np.argsort(-counts, kind="stable"))
    for row, plays in ((2_000, 3), (2_001, 5)):  # new since the refit
        for user in range(plays):
            model.learn(500 + user, row)
    scores = model.scores(3, 2_002)
    assert scores[2_001] > scores[2_000] > scores[1_999] == 0.0
    assert scores[:120].max() > TIE
    assert scores[2_001] < TIE
    np.testing.assert_array_equal(model.scores(500, 2_002) > 0.0, np.bincount([*pairs[1], 2_000, 2_001]) > 0)


def test_popularity_breaks_ties_of_opinions() -> None:
    """Videos 1 and 2 go with 0 alike; 2 has had one more positive since the refit."""
    users, rows = np.repeat(np.arange(4), 3), np.tile(np.arange(3), 4)
    model = learned(EaseRefit(16 * 12, EASE, 1), (users, rows))
    model.learn(8, 0)
    before = model.scores(8, 3)
    assert before[1] == pytest.approx(before[2], abs=1e-12)
    model.learn(9, 2)
    scores = model.scores(8, 3)
    assert 0.0 < scores[2] - scores[1] < TIE


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pairs", [[], [(0, 0)], [(0, 0), (1, 0)], [(0, 0), (0, 1)], [(0, 4), (7, 9), (0, 9)]])
def test_streams_too_short_to_choose_on_give_finite_scores(name: str, pairs: list[tuple[int, int]]) -> None:
    users, rows = np.array(pairs, np.int64).reshape(-1, 2).T
    model = make(name, users, rows, 1)
    assert model.settings == {**BASELINES[name].fits[0], "decay": 1.0}
    np.testing.assert_array_equal(model.scores(0, 3), 0.0)
    learned(model, (users, rows))
    assert model.refits == len(pairs)
    for user in (0, 7, 50):
        assert np.isfinite(model.scores(user, 12)).all()
        assert model.scores(user, 0).shape == (0,)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", ["one user", "one video"])
def test_one_user_or_one_video_is_learned(name: str, shape: str) -> None:
    many, one = np.arange(40), np.zeros(40, np.int64)
    users, rows = (one, many) if shape == "one user" else (many, one)
    model = learned(make(name, users, rows, 1), (users, rows))
    assert model.refits == 16
    assert np.isfinite(model.scores(0, 41)).all()
    assert model.scores(999, 41)[0] == pytest.approx(TIE * (1 / 40 if shape == "one user" else 1))


def test_without_implicit_als_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "implicit", None)
    pairs = planted(64)
    with pytest.raises(RefitUnavailable, match="pip install implicit"):
        make("als", *pairs, 1)
    assert learned(make("ease", *pairs, 1), pairs).refits == 16


def test_an_unknown_baseline_is_named_with_those_there_are() -> None:
    with pytest.raises(RefitUnavailable, match=r"'knn'.*ease, als"):
        make("knn", *planted(64), 1)


def test_the_grids_have_a_choice_and_no_setting_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for kind in BASELINES.values():
        tried = {(*fit.values(), decay) for fit in kind.fits for decay in refit.DECAYS}
        assert len(tried) == len(kind.fits) * len(refit.DECAYS) >= 12
