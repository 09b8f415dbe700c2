"""The ranker: what it serves before any lesson, what lessons teach it, how parts add up, and what it refuses."""

import itertools
import math
import re
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from online_models.base import Float32Array, Float64Array, ModelError
from online_models.features import FEATURES, MISSING, USER_INPUTS, Described
from online_models.parts import LIMIT
from online_models.ranker import (
    BLEND_UNTIL,
    BUCKETS,
    GROUPS,
    PARAMETERS,
    RANDOM,
    SIZE,
    TOP,
    Ranker,
    bucket_of,
    features_of,
)

#: Weights of histories of 0, 1 to 4, and 5 or more, as they were fitted before there was a ranker that learns.
FIXED = {
    "factors": (0.00, 0.50, 0.51),
    "bias": (0.20, 0.05, 0.24),
    "covisitation": (0.00, 0.24, 1.28),
    "markov": (0.00, -0.04, 0.22),
    "popularity_300": (0.11, 0.16, 0.00),
    "popularity_3000": (0.18, 0.30, 0.69),
    "popularity_30000": (0.58, 0.50, -0.34),
    "content": (0.00, 0.93, 3.43),
}

Choice = Callable[[Described], int]
"""Which candidate a made-up user takes."""


def candidates(rng: np.random.Generator, m: int = 20) -> Described:
    items = rng.normal(0.0, 1.0, (m, len(FEATURES))).astype(np.float32)
    return Described(items, rng.normal(0.0, 1.0, len(USER_INPUTS)).astype(np.float32), np.zeros(m, np.bool_))


def of(described: Described, feature: str) -> Float32Array:
    return described.items[:, FEATURES.index(feature)]


def taught(
    choose: Choice, lessons: int = 1_500, ranker: Ranker | None = None, seed: int = 1, length: int = 6
) -> Ranker:
    ranker = Ranker(1) if ranker is None else ranker
    rng = np.random.default_rng(seed)
    for number in range(lessons):
        described = candidates(rng)
        assert ranker.learn(0, described, length, choose(described), number).learned
    return ranker


def hits(ranker: Ranker, choose: Choice, length: int = 6) -> float:
    """Share of new lists whose first item is the one that is chosen."""
    rng = np.random.default_rng(1_000)
    lists = [candidates(rng) for _ in range(400)]
    return float(np.mean([int(ranker.scores(each, length).argmax()) == choose(each) for each in lists]))


def largest(feature: str) -> Choice:
    return lambda described: int(of(described, feature).argmax())


@pytest.mark.parametrize("length", [0, 1, 4, 5, 20])
def test_before_any_lesson_the_blend_serves(length: int) -> None:
    described = candidates(np.random.default_rng(1), 50)
    weights = {name: each[0 if length == 0 else 1 if length < 5 else 2] for name, each in FIXED.items()}
    expected = [
        sum(weight * float(row[FEATURES.index(name)]) for name, weight in weights.items()) for row in described.items
    ]
    for seed in (1, 2):
        scores = Ranker(seed).scores(described, length)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("feature", ["idle", "passed", "unplayed"])
def test_what_is_always_chosen_ranks_first(feature: str) -> None:
    assert hits(Ranker(1), largest(feature)) < 0.2
    assert hits(taught(largest(feature)), largest(feature)) > 0.8


def test_lessons_are_stronger_than_the_blend() -> None:
    """What the blend likes best, and lessons say is never taken, comes last."""
    least: Choice = lambda described: int(of(described, "covisitation").argmin())  # noqa: E731 (a choice as the others)
    assert hits(Ranker(1), least) < 0.03
    assert hits(taught(least, 3_000), least) > 0.8


def test_the_hidden_layer_learns_what_no_weight_can() -> None:
    """Some users take the oldest, the others the newest: a weight of age is right for one half of them."""
    by_input: Choice = lambda described: int((np.sign(described.user[0]) * of(described, "age")).argmax())  # noqa: E731
    rng = np.random.default_rng(7)
    lists = [candidates(rng) for _ in range(400)]
    assert np.mean([largest("age")(each) == by_input(each) for each in lists]) < 0.6
    assert hits(taught(by_input, 4_000), by_input) > 0.75


def test_a_length_of_history_has_weights_of_its_own() -> None:
    ranker = Ranker(1)
    for number in range(1_500):
        described = candidates(np.random.default_rng(number))
        ranker.learn(0, described, 2, largest("idle")(described), 2 * number)
        ranker.learn(0, described, 9, largest("age")(described), 2 * number + 1)
    assert hits(ranker, largest("idle"), 1) > hits(ranker, largest("age"), 1) + 0.2
    assert hits(ranker, largest("age"), 19) > hits(ranker, largest("idle"), 19) + 0.2
    groups = ranker.part(0)[len(FEATURES) : 6 * len(FEATURES)].reshape(5, -1)
    assert groups.any(axis=1).tolist() == [False, True, False, True, False]


def test_buckets() -> None:
    assert [bucket_of(length) for length in (0, 1, 2, 3, 7, 8, 19, 20, 1_000)] == [0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert len(BUCKETS) == 5


def test_a_loss_is_minus_the_logarithm_of_the_softmax() -> None:
    described = candidates(np.random.default_rng(4), 30)
    ranker = Ranker(1)
    scores = ranker.scores(described, 6).astype(float)
    lesson = ranker.learn(0, described, 6, 3, 1)
    assert lesson.loss == pytest.approx(math.log(np.exp(scores).sum()) - scores[3], rel=1e-5)
    assert ranker.compared == 30
    # Learning it lowers it.
    assert ranker.learn(0, described, 6, 3, 1).loss < lesson.loss


def test_a_step_is_adagrads_of_the_softmax() -> None:
    """All of the gradient by differences of the loss; a hidden layer that has begun to speak."""
    ranker = taught(largest("idle"), 30)
    described = candidates(np.random.default_rng(5), 25)
    before = ranker.part(0)
    slopes = numeric(before, described)
    ranker.learn(0, described, 6, 3, 9)
    after = ranker.part(0)
    for place, slope in slopes.items():
        rate = 0.05 / math.sqrt(before[PARAMETERS + place] + slope**2 + 1.0)
        assert after[place] - before[place] == pytest.approx(-rate * slope, rel=0.05, abs=2e-5), place
        assert after[PARAMETERS + place] - before[PARAMETERS + place] == pytest.approx(slope**2, rel=0.1, abs=2e-4)


def numeric(part: Float64Array, described: Described) -> dict[int, float]:
    """Slopes of candidate 3's loss, in some parameters of each kind."""
    f, u = len(FEATURES), len(USER_INPUTS)
    inner = 6 * f
    places = [4, f * (1 + bucket_of(6)) + 4, f * (1 + bucket_of(0)) + 4, f + 7]
    places += [inner + 5, inner + 3 * (f + u) + f + 1, inner + 11 * (f + u) + 20, PARAMETERS - 1, PARAMETERS - 9]

    def loss(values: Float64Array) -> float:
        other = Ranker(1)
        other.put(0, values)
        scores = other.scores(described, 6).astype(float)
        return float(np.log(np.exp(scores - scores.max()).sum()) + scores.max() - scores[3])

    slopes = {}
    for place in places:
        up, down = part.copy(), part.copy()
        up[place] += 0.02
        down[place] -= 0.02
        slopes[place] = (loss(up) - loss(down)) / 0.04
    return slopes


def test_others_are_the_best_and_a_few_of_the_rest() -> None:
    """Of many candidates 61 are compared; random ones stand for all the rest in the loss."""
    described = candidates(np.random.default_rng(6), 500)
    for chosen in (int(Ranker(1).scores(described, 6).argmax()), 7):
        ranker = Ranker(1)
        scores = ranker.scores(described, 6).astype(float)
        losses = [Ranker(1).learn(0, described, 6, chosen, seed).loss for seed in range(200)]
        exact = math.log(np.exp(scores).sum()) - scores[chosen]
        assert np.mean(losses) == pytest.approx(exact, abs=0.02)
        assert np.std(losses) > 0.001
        ranker.learn(0, described, 6, chosen, 1)
        assert ranker.compared == 1 + TOP + RANDOM


@pytest.mark.parametrize("m", [1, 2, TOP, TOP + 1, TOP + 2, TOP + RANDOM, TOP + RANDOM + 1, TOP + RANDOM + 2])
def test_any_number_of_candidates_makes_a_lesson(m: int) -> None:
    for chosen in {0, m // 2, m - 1}:
        ranker = Ranker(1)
        lesson = ranker.learn(0, candidates(np.random.default_rng(m), m), 6, chosen, 5)
        assert lesson.learned
        assert math.isfinite(lesson.loss)
        assert ranker.compared == min(m, 1 + TOP + RANDOM)
        if m == 1:
            assert lesson.loss == pytest.approx(0.0, abs=1e-6)
            assert not ranker.part(0)[:PARAMETERS].any()


@pytest.mark.parametrize("chosen", [-1, 20, 10**9])
def test_a_choice_that_is_no_candidate_is_an_error(chosen: int) -> None:
    ranker = Ranker(1)
    with pytest.raises(ModelError, match="candidate"):
        ranker.learn(0, candidates(np.random.default_rng(1)), 6, chosen, 1)
    with pytest.raises(ModelError, match="candidate"):
        ranker.learn(0, candidates(np.random.default_rng(1), 0), 6, 0, 1)
    assert not ranker.part(0).any()


def test_the_lessons_inputs_are_left_as_they_were() -> None:
    described = candidates(np.random.default_rng(3), 100)
    kept = [each.copy() for each in described]
    ranker = taught(largest("idle"), 20)
    ranker.learn(0, described, 6, 5, 1)
    scores = ranker.scores(described, 6)
    before = ranker.part(0)
    np.testing.assert_array_equal(ranker.scores(described, 6), scores)
    np.testing.assert_array_equal(ranker.part(0), before)
    for now, was in zip(described, kept, strict=True):
        np.testing.assert_array_equal(now, was)


# Parts


def lessons(ranker: Ranker, numbers: Sequence[int]) -> Ranker:
    """The same lessons, each by the part that `numbers` names in turn."""
    rng = np.random.default_rng(8)
    for number in range(300):
        described = candidates(rng, 80)
        ranker.learn(numbers[number % len(numbers)], described, number % 25, number % 80, number)
    return ranker


def test_parts_of_one_ranker_learn_as_one() -> None:
    alone, shared = lessons(Ranker(1), [0]), lessons(Ranker(1), [3, 0, 7])
    np.testing.assert_allclose(sum(shared.part(number) for number in (0, 3, 7)), alone.part(0), rtol=1e-9, atol=1e-9)
    assert all(shared.part(number).any() for number in (0, 3, 7))
    assert not shared.part(1).any()
    for length in (0, 3, 20):
        described = candidates(np.random.default_rng(length), 50)
        np.testing.assert_array_equal(shared.scores(described, length), alone.scores(described, length))


def test_parts_make_the_same_ranker_elsewhere_in_any_order() -> None:
    here = lessons(Ranker(1), [0, 1, 2])
    there, other = Ranker(1), Ranker(1)
    for number in (0, 1, 2):
        assert there.put(number, here.part(number))
    for number in (2, 0, 1):
        assert other.put(number, here.part(number))
    assert there.compared == here.compared == 300 * 61
    for length in (0, 3, 20):
        described = candidates(np.random.default_rng(length), 50)
        np.testing.assert_allclose(
            there.scores(described, length), here.scores(described, length), rtol=1e-5, atol=1e-5
        )
        np.testing.assert_array_equal(there.scores(described, length), other.scores(described, length))
    np.testing.assert_array_equal(there.part(1), here.part(1))


def test_parts_are_summed_in_the_same_order_everywhere() -> None:
    """Or workers would rank differently, by the bits that rounding has lost."""
    place = FEATURES.index("idle")
    parts = []
    for total in (1e20, -1e20, 30.0):
        part = np.zeros(SIZE)
        part[place], part[2 * PARAMETERS], part[2 * PARAMETERS + 1 + place] = 0.5, 10.0, total
        parts.append(part)
    described = candidates(np.random.default_rng(1))
    scores = set()
    for order in itertools.permutations(range(3)):
        ranker = Ranker(1)
        assert all(ranker.put(number, parts[number]) for number in order)
        scores.add(ranker.scores(described, 6).tobytes())
    assert len(scores) == 1


def test_a_part_replaces_the_one_before_and_is_a_copy() -> None:
    ranker, other = Ranker(1), lessons(Ranker(1), [5])
    part = other.part(5)
    for _ in range(3):
        assert ranker.put(5, part)
    assert ranker.compared == other.compared
    part[:] = 7.0
    ranker.part(5)[:] = 7.0
    np.testing.assert_array_equal(ranker.part(5), other.part(5))
    assert ranker.put(5, np.zeros(SIZE))
    described = candidates(np.random.default_rng(1))
    np.testing.assert_array_equal(ranker.scores(described, 6), Ranker(1).scores(described, 6))


def test_lessons_go_on_from_parts_of_others() -> None:
    """A worker that has read the parts of another knows what it knows, and adds to its own part only."""
    teacher = taught(largest("idle"))
    pupil = Ranker(1)
    pupil.put(1, teacher.part(0))
    assert hits(pupil, largest("idle")) > 0.8
    taught(largest("idle"), 10, pupil, seed=3)
    np.testing.assert_array_equal(pupil.part(1), teacher.part(0))
    assert pupil.part(0)[2 * PARAMETERS] == 10 * 20


# What is refused


def unchanged(ranker: Ranker, act: Callable[[], object]) -> None:
    """`act` is refused: counted once, and no bit has changed."""
    described = candidates(np.random.default_rng(12))
    parts = [ranker.part(number) for number in range(3)]
    scores, compared, refused = ranker.scores(described, 6), ranker.compared, ranker.refused
    act()
    assert ranker.refused == refused + 1
    for number, part in enumerate(parts):
        assert ranker.part(number).tobytes() == part.tobytes()
    assert ranker.scores(described, 6).tobytes() == scores.tobytes()
    assert ranker.compared == compared


def refuses(described: Described, chosen: int) -> bool:
    """Whether the lesson is refused, counted once, and has changed no bit."""
    ranker = taught(largest("idle"), 50)
    before = ranker.part(0).tobytes()
    lesson = ranker.learn(0, described, 6, chosen, 1)
    same = ranker.part(0).tobytes() == before and ranker.compared == 50 * 20
    return not lesson.learned and ranker.refused == 1 and same and math.isfinite(lesson.loss)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of what has taken them: the assertion says more
@pytest.mark.parametrize("chosen", [3, 4], ids=["chosen", "other"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_lesson_with_a_feature_that_is_not_finite_is_refused(value: float, chosen: int) -> None:
    taken = []
    for feature in FEATURES:
        described = candidates(np.random.default_rng(2))
        of(described, feature)[3] = value
        if not refuses(described, chosen):
            taken.append(feature)
    assert taken == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_lesson_of_a_user_who_is_not_finite_is_refused(value: float) -> None:
    taken = []
    for place, name in enumerate(USER_INPUTS):
        described = candidates(np.random.default_rng(2))
        described.user[place] = value
        if not refuses(described, 3):
            taken.append(name)
    assert taken == []


def test_a_broken_candidate_ranks_last_and_is_not_there_for_lessons() -> None:
    described = candidates(np.random.default_rng(2), 90)
    described.broken[[7, 50, 81]] = True
    scores = taught(largest("idle"), 50).scores(described, 6)
    assert np.flatnonzero(np.isneginf(scores)).tolist() == [7, 50, 81]
    assert np.isfinite(scores[~described.broken]).all()
    sound = Described(described.items[~described.broken], described.user, np.zeros(87, np.bool_))
    for chosen, place in ((3, 3), (8, 7), (89, 86)):
        one, other = taught(largest("idle"), 50), taught(largest("idle"), 50)
        assert one.learn(0, described, 6, chosen, 1) == other.learn(0, sound, 6, place, 1)
        assert one.part(0).tobytes() == other.part(0).tobytes()


def test_a_lesson_of_a_broken_choice_is_refused() -> None:
    described = candidates(np.random.default_rng(2))
    described.broken[7] = True
    assert refuses(described, 7)
    assert not refuses(described, 6)
    described.broken[:] = True
    assert refuses(described, 6)


def test_a_lesson_that_would_leave_the_bounds_is_refused() -> None:
    ranker = Ranker(1)
    part = np.zeros(SIZE)
    # A weight at its bound, and a lesson that wants it larger.
    part[FEATURES.index("idle")] = LIMIT
    assert ranker.put(0, part)
    described = candidates(np.random.default_rng(2))
    against = int(of(described, "idle").argmin())
    for_it = int(of(described, "idle").argmax())
    assert ranker.learn(0, described, 6, against, 1).learned
    assert ranker.put(0, part)
    described.items[:, FEATURES.index("idle")] = 0.0
    of(described, "idle")[for_it] = -1e-3
    of(described, "popularity_3000")[for_it] = -20.0
    assert ranker.learn(0, described, 6, for_it, 1).learned
    assert ranker.put(0, part)
    of(described, "idle")[for_it] = 1e-3
    unchanged(ranker, lambda: ranker.learn(0, described, 6, for_it, 1))
    assert not ranker.learn(0, described, 6, for_it, 1).learned


def changed(place: int, value: float) -> Float64Array:
    part = lessons(Ranker(1), [0]).part(0)
    part[place] = value
    return part


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, PARAMETERS, 2 * PARAMETERS, SIZE - 1])
def test_a_part_that_is_not_finite_is_refused(place: int, value: float) -> None:
    ranker = lessons(Ranker(1), [0, 1])
    unchanged(ranker, lambda: ranker.put(1, changed(place, value)))
    assert not ranker.put(1, changed(place, value))


@pytest.mark.parametrize(
    "part",
    [
        np.zeros(SIZE - 1),
        np.zeros(SIZE + 1),
        np.zeros(0),
        np.zeros((1, SIZE)),
        changed(3, 1.01 * LIMIT),
        changed(PARAMETERS - 1, -1e30),
    ],
    ids=["short", "long", "empty", "deep", "large", "very large"],
)
def test_a_part_of_another_size_or_with_a_weight_too_large_is_refused(part: Float64Array) -> None:
    ranker = lessons(Ranker(1), [0, 1])
    unchanged(ranker, lambda: ranker.put(1, part))
    assert not ranker.put(2, part)


@pytest.mark.parametrize(
    ("place", "value"),
    [(PARAMETERS + 3, -1e6), (2 * PARAMETERS, -1e9), (2 * PARAMETERS + 1, 1e300), (SIZE - 1, 1e300)],
    ids=["squared gradient", "count", "sum", "sum of squares"],
)
def test_no_part_that_is_taken_spoils_the_ranker(place: int, value: float) -> None:
    """Whatever is in it: scores stay finite, and lessons are learned."""
    ranker = lessons(Ranker(1), [0, 1])
    ranker.put(1, changed(place, value))
    described = candidates(np.random.default_rng(3))
    assert np.isfinite(ranker.scores(described, 6)).all()
    assert ranker.learn(0, described, 6, 3, 1).learned


# Numbers of any size


def test_features_that_never_change_are_no_trouble_and_neither_is_their_first_change() -> None:
    ranker = Ranker(1)
    rng = np.random.default_rng(1)
    constant = {"age": 0.0, "idle": 1e6, "count": -7.5, "markov": math.log(3e-3), "shown_300": 1e30}
    for number in range(300):
        described = candidates(rng)
        for name, value in constant.items():
            of(described, name)[:] = value
        assert ranker.learn(0, described, 6, int(of(described, "passed").argmax()), number).learned
        assert np.isfinite(ranker.scores(described, 6)).all()
    for change in (1e-6, 1.0, -1e4, 1e30, -1e30):
        described = candidates(rng)
        for name, value in constant.items():
            of(described, name)[:] = value
            of(described, name)[5] += np.float32(change)
        scores = ranker.scores(described, 6)
        assert np.isfinite(scores).all()
        # What was never seen to differ decides at most what its clipped weight does; the blend has no limit of its own.
        if abs(change) <= 1.0:
            assert np.ptp(scores) < 60.0
        assert ranker.learn(0, described, 6, 5, 1).learned
        assert np.isfinite(ranker.part(0)).all()


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e15, 1e30])
def test_features_of_any_scale_are_ranked_and_learned(scale: float) -> None:
    """Standardised, so that the scale does not matter."""
    ranker, rng = Ranker(1), np.random.default_rng(1)
    ranker.do_without([*FIXED])

    def scaled() -> Described:
        described = candidates(rng)
        of(described, "idle")[:] *= np.float32(scale)
        return described

    for number in range(800):
        described = scaled()
        assert ranker.learn(0, described, 6, largest("idle")(described), number).learned
    right = 0
    for _ in range(200):
        described = scaled()
        scores = ranker.scores(described, 6)
        assert np.isfinite(scores).all()
        right += int(scores.argmax()) == largest("idle")(described)
    # A spread below a hundredth is taken for noise.
    assert right > 150 if scale > 1e-3 else right < 60


def test_features_as_large_as_they_may_be_change_nothing_for_the_worse() -> None:
    ranker = Ranker(1)
    for number in range(50):
        described = candidates(np.random.default_rng(number))
        described.items[:] *= np.float32(1e30)
        assert np.isfinite(ranker.scores(described, 6)).all()
        ranker.learn(0, described, 6, number % 20, number)
        assert np.isfinite(ranker.part(0)).all()
    assert ranker.compared > 0
    assert np.isfinite(ranker.scores(candidates(np.random.default_rng(0)), 6)).all()


def test_a_lesson_whose_scores_overflow_is_refused() -> None:
    described = candidates(np.random.default_rng(2))
    of(described, "popularity_3000")[:] = np.float32(3e38) * np.sign(of(described, "popularity_3000"))
    of(described, "popularity_300")[:] = of(described, "popularity_3000")
    of(described, "content")[:] = of(described, "popularity_3000")
    assert np.isfinite(described.items).all()
    assert not np.isfinite(Ranker(1).scores(described, 6)).all()
    assert refuses(described, 3)


def test_ten_thousand_lessons_of_an_adversary_leave_it_finite_and_bounded() -> None:
    """The least likely candidate is always chosen, from features whose scale and place change all the time."""
    ranker, rng = Ranker(1), np.random.default_rng(9)
    learned = 0
    for number in range(10_000):
        m = int(rng.integers(1, 70))
        described = candidates(rng, m)
        match number % 4:
            case 1:
                described.items[:] = np.sign(described.items) * np.float32(10.0 ** rng.integers(-30, 30))
            case 2:
                described.items[:] += np.float32(10.0 ** rng.integers(0, 20))
            case 3:
                described.user[:] *= np.float32(10.0 ** rng.integers(0, 20))
        length = int(rng.integers(0, 30))
        scores = ranker.scores(described, length)
        assert np.isfinite(scores).all()
        lesson = ranker.learn(number % 3, described, length, int(scores.argmin()), number)
        assert math.isfinite(lesson.loss)
        learned += lesson.learned
    assert learned + ranker.refused == 10_000
    assert learned > 5_000
    parts = [ranker.part(number) for number in range(3)]
    assert all(np.isfinite(part).all() for part in parts)
    # First weights of the hidden layer come on top: they are below 1.
    assert np.abs(np.sum(parts, axis=0)[:PARAMETERS]).max() <= LIMIT + 1.0
    other = Ranker(1)
    assert all(other.put(number, part) for number, part in enumerate(parts))


# Seeds, and doing without


def test_the_same_seed_learns_the_same() -> None:
    one, other = lessons(Ranker(1), [0]), lessons(Ranker(1), [0])
    assert one.part(0).tobytes() == other.part(0).tobytes()
    described = candidates(np.random.default_rng(1))
    assert one.scores(described, 6).tobytes() == other.scores(described, 6).tobytes()


def test_another_seed_has_another_hidden_layer() -> None:
    described = candidates(np.random.default_rng(1))
    made = [lessons(Ranker(seed), [0]).scores(described, 6) for seed in (1, 2)]
    assert np.abs(made[0] - made[1]).max() > 1e-4


def test_the_seed_of_a_lesson_decides_the_random_others_and_nothing_else() -> None:
    few, many = candidates(np.random.default_rng(1), 1 + TOP), candidates(np.random.default_rng(1), 300)

    def parts(described: Described) -> set[bytes]:
        rankers = [Ranker(1) for _ in range(5)]
        for seed, ranker in enumerate(rankers):
            ranker.learn(0, described, 6, 3, seed)
        return {ranker.part(0).tobytes() for ranker in rankers}

    assert len(parts(few)) == 1
    assert len(parts(many)) == 5


@pytest.mark.parametrize("learn_first", [True, False])
def test_a_feature_that_is_done_without_changes_no_score(learn_first: bool) -> None:
    ranker = taught(largest("idle"), 200) if learn_first else Ranker(1)
    gone = ["idle", "covisitation", "bias"]
    ranker.do_without(gone)
    if not learn_first:
        taught(largest("idle"), 200, ranker)
    described = candidates(np.random.default_rng(1))
    scores = ranker.scores(described, 6)
    for name in gone:
        of(described, name)[:] *= np.float32(-30.0)
        np.testing.assert_array_equal(ranker.scores(described, 6), scores)
    of(described, "content")[:] *= np.float32(-1.0)
    assert np.abs(ranker.scores(described, 6) - scores).max() > 0.1


def test_one_list_can_do_without_features_and_the_next_is_as_before() -> None:
    ranker, deaf = taught(largest("idle"), 200), Ranker(1)
    assert deaf.put(0, ranker.part(0))
    gone = features_of(["markov", "idle", "markov_named"])
    assert gone == ("markov", "markov_of_best", "markov_named", "idle")
    deaf.do_without(gone)
    described = candidates(np.random.default_rng(1))
    before = ranker.scores(described, 6)
    np.testing.assert_array_equal(ranker.scores(described, 6, gone), deaf.scores(described, 6))
    np.testing.assert_array_equal(ranker.scores(described, 6), before)
    assert np.abs(ranker.scores(described, 6, gone) - before).max() > 0.1
    with pytest.raises(ModelError, match="'idel'"):
        features_of(["idel"])


def test_what_is_done_without_is_not_learned() -> None:
    ranker = Ranker(1)
    ranker.do_without(["idle"])
    taught(largest("idle"), 500, ranker)
    assert hits(ranker, largest("idle")) < 0.2
    assert ranker.part(0)[FEATURES.index("idle")] == 0.0
    # The others are learned as ever.
    taught(largest("passed"), 1_500, ranker)
    assert hits(ranker, largest("passed")) > 0.7


def test_doing_without_what_does_not_exist_says_what_does() -> None:
    ranker = Ranker(1)
    with pytest.raises(ModelError, match=re.compile("'idel'.*popularity_300.*passed")):
        ranker.do_without(["age", "idel"])
    described = candidates(np.random.default_rng(1))
    np.testing.assert_array_equal(ranker.scores(described, 6), Ranker(1).scores(described, 6))


def test_groups_name_every_feature() -> None:
    assert {name for group in GROUPS.values() for name in group} == set(FEATURES)


def test_the_blend_fades_as_lessons_come_in() -> None:
    """Half of it is left after `BLEND_UNTIL` compared candidates."""
    ranker, part = Ranker(1), np.zeros(SIZE)
    part[2 * PARAMETERS] = BLEND_UNTIL
    # As if every feature had had mean 0 and variance 1.
    part[-len(FEATURES) :] = BLEND_UNTIL
    assert ranker.put(0, part)
    described = candidates(np.random.default_rng(1))
    np.testing.assert_allclose(ranker.scores(described, 6), Ranker(1).scores(described, 6) / 2, rtol=1e-5, atol=1e-6)


def test_what_an_item_does_not_have_counts_as_the_mean() -> None:
    ranker = taught(largest("idle"), 200)
    described = candidates(np.random.default_rng(5))
    average = ranker.part(0)[2 * PARAMETERS + 1 + FEATURES.index("idle")] / ranker.part(0)[2 * PARAMETERS]
    of(described, "idle")[2] = average
    expected = ranker.scores(described, 6)
    of(described, "idle")[2] = MISSING
    np.testing.assert_allclose(ranker.scores(described, 6), expected, rtol=1e-4, atol=1e-4)
    before = ranker.part(0)
    assert ranker.learn(0, described, 6, 2, 1).learned
    after = ranker.part(0)
    place = 2 * PARAMETERS + 1 + FEATURES.index("idle")
    assert abs(after[place] - before[place]) < 1e4
