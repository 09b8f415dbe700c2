"""The heads: what lessons teach them, what they say before any, how parts add up, and what they refuse."""

import numpy as np
import pytest

from online_models.base import Behaviour, Float32Array, Float64Array, ModelError
from online_models.features import FEATURES, MISSING, USER_INPUTS, Described
from online_models.heads import HEADS, INPUTS, RATES, SIZE, WEIGHTS, Columns, Heads
from online_models.parts import LIMIT

LIKE, SKIP, SHARE = HEADS.index("like"), HEADS.index("skip"), HEADS.index("watch_share")
COLUMNS = Columns(impressions=0, shown=1, likes=2, watches=3)


def situation(rng: np.random.Generator) -> Float32Array:
    return rng.normal(0.0, 1.0, len(INPUTS)).astype(np.float32)


def outcomes(**known: float) -> Float64Array:
    out = np.full(len(HEADS), np.nan)
    for name, value in known.items():
        out[HEADS.index(name)] = value
    return out


def taught(lessons: int = 3_000, heads: Heads | None = None, seed: int = 1) -> Heads:
    """Likes follow the first input, skips its opposite, and the share watched the second."""
    heads = Heads() if heads is None else heads
    rng = np.random.default_rng(seed)
    for _ in range(lessons):
        x = situation(rng)
        chance = 1.0 / (1.0 + np.exp(-2.0 * x[0] + 2.0))
        liked = float(rng.random() < chance)
        skipped = float(rng.random() < 1.0 / (1.0 + np.exp(2.0 * x[0])))
        share = float(np.clip(0.5 + 0.2 * x[1], 0.0, 1.0))
        assert heads.learn(0, x, outcomes(like=liked, skip=skipped, watch_share=share))
    return heads


def test_before_any_lesson_all_is_even() -> None:
    chances = Heads().probabilities(situation(np.random.default_rng(1))[None])
    np.testing.assert_allclose(chances, 0.5)


def test_lessons_teach_what_follows_what() -> None:
    heads = taught()
    rng = np.random.default_rng(2)
    x = np.array([situation(rng) for _ in range(2_000)])
    chances = heads.probabilities(x)
    true = 1.0 / (1.0 + np.exp(-2.0 * x[:, 0] + 2.0))
    assert np.corrcoef(chances[:, LIKE], true)[0, 1] > 0.95
    assert np.corrcoef(chances[:, SKIP], x[:, 0])[0, 1] < -0.85
    assert np.corrcoef(chances[:, SHARE], x[:, 1])[0, 1] > 0.85
    assert abs(float(chances[:, LIKE].mean()) - float(true.mean())) < 0.05, "calibrated"
    assert abs(float(chances[:, SHARE].mean()) - 0.5) < 0.05


def test_what_follows_from_two_inputs_together_is_learned() -> None:
    """A like where both have one sign: no weighted sum of inputs tells."""
    heads, rng = Heads(), np.random.default_rng(7)
    x = np.array([situation(rng) for _ in range(20_000)])
    liked = (x[:, 0] * x[:, 1] > 0).astype(np.float64)
    for each, label in zip(x[:-2_000], liked[:-2_000], strict=True):
        heads.learn(0, each, outcomes(like=label))
    chances = heads.probabilities(x[-2_000:])[:, LIKE]
    assert float(np.mean((chances > 0.5) == liked[-2_000:])) > 0.8


def test_an_outcome_that_is_not_known_teaches_nothing_and_its_mean_stays() -> None:
    heads = Heads()
    for _ in range(50):
        heads.learn(0, situation(np.random.default_rng(3)), outcomes(like=1.0))
    width = len(INPUTS) + 1
    np.testing.assert_allclose(heads.part(0)[SKIP * width : (SKIP + 1) * width], 0.0)
    assert heads.means[LIKE] > 0.8
    assert heads.means[SKIP] == 0.5


def test_a_rare_outcome_is_rare_from_the_first_lessons_on() -> None:
    heads, rng = Heads(), np.random.default_rng(4)
    for n in range(400):
        heads.learn(0, situation(rng), outcomes(like=float(n % 50 == 0)))
    chances = heads.probabilities(np.array([situation(rng) for _ in range(500)]))[:, LIKE]
    assert 0.005 < float(chances.mean()) < 0.08


def test_lessons_of_shards_add_up_to_those_of_one() -> None:
    rng = np.random.default_rng(5)
    lessons = [(situation(rng), outcomes(like=float(n % 3 == 0), skip=float(n % 2))) for n in range(200)]
    one, two = Heads(), Heads()
    for n, lesson in enumerate(lessons):
        one.learn(0, *lesson)
        two.learn(n % 4, *lesson)
    x = situation(rng)[None]
    np.testing.assert_allclose(one.logits(x), two.logits(x), rtol=1e-5)
    copy = Heads()
    for number in (3, 1, 0, 2):
        assert copy.put(number, two.part(number))
    np.testing.assert_allclose(copy.logits(x), two.logits(x), rtol=1e-6)
    assert copy.lessons == 200


def test_a_part_replaces_the_same_shards_and_no_other() -> None:
    heads = taught(200)
    part = heads.part(0)
    assert heads.put(1, part)
    assert heads.lessons == 400
    assert heads.put(1, np.zeros(SIZE))
    assert heads.lessons == 200
    np.testing.assert_array_equal(heads.part(0), part)


@pytest.mark.parametrize("where", [0, WEIGHTS, 2 * WEIGHTS, 2 * WEIGHTS + 1, SIZE - 1])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_unsound_part_is_refused_and_changes_nothing(where: int, value: float) -> None:
    heads = taught(100)
    before = heads.part(0)
    broken = before.copy()
    broken[where] = value
    assert not heads.put(0, broken)
    assert not heads.put(0, np.zeros(SIZE - 1))
    assert heads.refused == 2
    np.testing.assert_array_equal(heads.part(0), before)


@pytest.mark.parametrize(
    ("where", "value"),
    [(0, 3 * LIMIT), (WEIGHTS, -1.0), (2 * WEIGHTS, -1.0), (SIZE - 2 * len(HEADS), 1e9), (SIZE - 1, 1e9)],
)
def test_a_part_that_no_lessons_make_is_refused(where: int, value: float) -> None:
    heads = taught(100)
    broken = heads.part(0)
    broken[where] = value
    assert not heads.put(0, broken)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_lesson_with_broken_inputs_is_refused(value: float) -> None:
    heads = taught(100)
    before = heads.part(0)
    x = situation(np.random.default_rng(1))
    x[7] = value
    assert not heads.learn(0, x, outcomes(like=1.0))
    assert not heads.learn(0, situation(np.random.default_rng(1)), outcomes(like=1.5))
    assert not heads.learn(0, situation(np.random.default_rng(1)), outcomes(like=np.inf))
    assert heads.refused == 3
    np.testing.assert_array_equal(heads.part(0), before)


def test_wrong_shapes_are_our_error() -> None:
    heads = Heads()
    with pytest.raises(ModelError):
        heads.learn(0, np.zeros(3, np.float32), outcomes())
    with pytest.raises(ModelError):
        heads.logits(np.zeros((2, 3), np.float32))


def test_constant_and_huge_inputs_keep_all_finite() -> None:
    heads = Heads()
    x = np.full(len(INPUTS), 3e37, np.float32)
    for n in range(300):
        heads.learn(0, x if n % 2 else -x, outcomes(like=float(n % 2), skip=0.0))
    assert np.isfinite(heads.probabilities(np.array([x, -x]))).all()
    constant = Heads()
    for n in range(300):
        constant.learn(0, np.ones(len(INPUTS), np.float32), outcomes(like=float(n % 4 == 0)))
    assert abs(float(constant.probabilities(np.ones((1, len(INPUTS)), np.float32))[0, LIKE]) - 0.25) < 0.05


def described(m: int) -> Described:
    return Described(
        np.zeros((m, len(FEATURES)), np.float32), np.zeros(len(USER_INPUTS), np.float32), np.zeros(m, np.bool_)
    )


def made(heads: Heads, behaviour: Behaviour, places: Float32Array | None = None) -> dict[str, Float32Array]:
    counts = np.array([[0, 0, 0, 0], [100, 40, 30, 80], [10, 400, 0, 3]], np.int32)
    rows = np.array([0, 1, 2], np.int32)
    plays, length = np.array([0.0, 50.0, 1.0]), np.array([0.0, 3.0, 4.0], np.float32)
    found = heads.inputs(described(3), rows, counts, COLUMNS, plays, length, behaviour, 0.3, places)
    assert found.shape == (3, len(INPUTS))
    return {name: found[:, INPUTS.index(name)] for name in RATES}


def test_no_two_inputs_have_one_name() -> None:
    assert len(set(INPUTS)) == len(INPUTS)


def test_inputs_say_how_video_and_user_have_reacted() -> None:
    heads = Heads()
    found = made(heads, Behaviour(tries=10, positives=9, likes=0, watches=10, idle_s=60))
    np.testing.assert_allclose(found["item_tries"], np.log1p([0, 100, 400]), rtol=1e-6)
    assert found["item_likes"][0] == 0.0, "nothing is known of it: the mean"
    assert found["item_likes"][2] < found["item_likes"][0]
    assert found["item_watches"][1] > 0.0 > found["item_watches"][2]
    assert (found["user_positives"] > 0.0).all()
    assert (found["user_likes"] < 0.0).all()
    np.testing.assert_allclose(found["user_idle"], np.log(61), rtol=1e-6)
    np.testing.assert_allclose(found["item_length"], [MISSING, 3.0, 4.0])
    assert (found["place"] == 0.0).all()
    stranger = made(heads, Behaviour(), np.array([0.0, 1.0, 2.0], np.float32))
    assert (stranger["user_idle"] == np.float32(MISSING)).all()
    assert (stranger["user_positives"] == 0.0).all()
    assert stranger["place"].tolist() == [0.0, 1.0, 2.0]


def test_a_low_place_is_not_held_against_the_video() -> None:
    """What is likeable is shown at the foot of lists, where few look; at equal places it must win."""
    heads, rng = Heads(), np.random.default_rng(6)
    place, good = INPUTS.index("place"), 0
    for _ in range(6_000):
        x = np.zeros(len(INPUTS), np.float32)
        x[good] = float(rng.random() < 0.5)
        low = rng.random() < (0.8 if x[good] else 0.2)
        x[place] = np.log(10) if low else 0.0
        seen = rng.random() < (0.15 if low else 1.0)
        heads.learn(0, x, outcomes(like=float(seen and rng.random() < (0.5 if x[good] else 0.35))))
    x = np.zeros((2, len(INPUTS)), np.float32)
    x[0, good] = 1.0
    better, worse = heads.probabilities(x)[:, LIKE]
    assert better > worse
