"""Numbers of an evaluation: metrics by hand, standard errors against a bootstrap, over time and over seeds."""

import math

import numpy as np
import pytest

from cli.positions import Positions, metrics, over_seeds
from state.arms import ABSENT


def positions(k: int = 5, **arms: list[int]) -> Positions:
    """One target a minute."""
    made = Positions(k, {arm: [] for arm in arms})
    for number, places in enumerate(zip(*arms.values(), strict=True)):
        made.add(
            60_000 * number, number % 2 == 0, number % 3 == 0, number % 4 == 0, dict(zip(arms, places, strict=True))
        )
    return made


def test_metrics_by_hand() -> None:
    found = metrics(np.array([0, 2, ABSENT, 4, ABSENT, 0, ABSENT, ABSENT]), 5)
    assert found == {
        "recall@5": 0.5,
        "ndcg@5": round((1 + 1 / 2 + 1 / math.log2(6) + 1) / 8, 5),
        "mrr": round((1 + 1 / 3 + 1 / 5 + 1) / 8, 5),
        "precision@5": 0.1,
        "se": round(math.sqrt(0.25 / 8), 5),
    }


@pytest.mark.parametrize(("places", "recall", "se"), [([], 0.0, 0.0), ([ABSENT], 0.0, 0.0), ([0], 1.0, 0.0)])
def test_metrics_of_hardly_anything(places: list[int], recall: float, se: float) -> None:
    found = metrics(np.array(places, np.int32), 10)
    assert found == {"recall@10": recall, "ndcg@10": recall, "mrr": recall, "precision@10": recall / 10, "se": se}


def test_arms_have_the_same_targets_and_places_of_their_own() -> None:
    made = positions(a=[0, 1, ABSENT, 3], b=[ABSENT, 0, 0, ABSENT])
    assert len(made) == 4
    assert (made.arms, made.at_ms) == ({"a": [0, 1, -1, 3], "b": [-1, 0, 0, -1]}, [0, 60_000, 120_000, 180_000])
    assert made.hits("a").tolist() == [1.0, 1.0, 0.0, 1.0]
    assert made.hits("b").tolist() == [0.0, 1.0, 1.0, 0.0]
    assert made.metrics("a")["recall@5"] == 0.75
    cold = np.array(made.cold)
    assert cold.tolist() == [True, False, True, False]
    assert made.group(cold) == {"n": 2, "arms": {arm: metrics(np.array(made.arms[arm])[cold], 5) for arm in "ab"}}
    assert made.metrics("a", cold)["recall@5"] == 0.5
    assert made.metrics("a", np.zeros(4, np.bool_))["recall@5"] == 0.0


def test_a_target_without_a_place_in_some_arm_is_an_error() -> None:
    with pytest.raises(KeyError):
        Positions(5, {"a": [], "b": []}).add(0, False, False, False, {"a": 0})


def correlated(n: int, seed: int = 1) -> Positions:
    """Two arms that mostly hit the same targets."""
    rng = np.random.default_rng(seed)
    shared = rng.random(n)
    a, b = shared < 0.12, (shared < 0.09) | (rng.random(n) < 0.01)
    made = Positions(5, {"a": np.where(a, 0, ABSENT).tolist(), "b": np.where(b, 2, ABSENT).tolist()})
    made.at_ms = list(range(n))
    return made


def test_the_standard_error_of_a_recall_is_a_bootstraps() -> None:
    made, rng = correlated(2_000), np.random.default_rng(2)
    hits = made.hits("a")
    drawn = [float(hits[rng.integers(0, len(hits), len(hits))].mean()) for _ in range(2_000)]
    assert made.metrics("a")["se"] == pytest.approx(float(np.std(drawn)), rel=0.08)


def test_the_standard_error_of_a_ratio_is_a_bootstraps() -> None:
    made, rng = correlated(2_000), np.random.default_rng(2)
    a, b = made.hits("a"), made.hits("b")
    ratio, error = made.ratio("a", "b")
    assert ratio == pytest.approx(a.sum() / b.sum())
    drawn = []
    for _ in range(2_000):
        places = rng.integers(0, len(a), len(a))
        drawn.append(a[places].mean() / b[places].mean())
    assert error == pytest.approx(float(np.std(drawn)), rel=0.1)
    # Of pairs: two independent arms of these recalls would be told apart much worse.
    apart = ratio * math.sqrt((1 - a.mean()) / a.sum() + (1 - b.mean()) / b.sum())
    assert error < 0.7 * apart


def test_ratios_of_an_arm_with_itself_and_with_nothing() -> None:
    made = positions(a=[0, ABSENT, 2], none=[ABSENT] * 3)
    assert made.ratio("a", "a") == (1.0, 0.0)
    assert made.ratio("none", "a") == (0.0, 0.0)
    assert all(math.isnan(number) for number in made.ratio("a", "none"))
    assert all(math.isnan(number) for number in positions(a=[], b=[]).ratio("a", "b"))


def test_a_curve_has_the_recall_of_each_stretch_and_its_last_time() -> None:
    made = positions(a=[0, ABSENT, 1, ABSENT, ABSENT, ABSENT, 0, 0])
    at_ms, recalls = made.curve("a", points=4)
    assert at_ms.tolist() == [60_000, 180_000, 300_000, 420_000]
    assert recalls.tolist() == [0.5, 0.5, 0.0, 1.0]
    at_ms, recalls = made.curve("a", points=1)
    assert (at_ms.tolist(), recalls.tolist()) == ([420_000], [0.5])


@pytest.mark.parametrize("n", [0, 1, 3, 7, 39, 40, 41, 100, 1_234])
def test_a_curves_stretches_hold_every_target_once(n: int) -> None:
    rng = np.random.default_rng(n)
    made = positions(a=np.where(rng.random(n) < 0.3, 0, ABSENT).tolist())
    at_ms, recalls = made.curve("a")
    assert len(at_ms) == len(recalls) == min(n, 40)
    counts = np.diff([-1, *(at_ms // 60_000).tolist()])
    assert counts.sum() == n
    assert n == 0 or counts.max() - counts.min() <= 1
    assert (counts * recalls).sum() == pytest.approx(made.hits("a").sum())


def run(recall: float, se: float, mrr: float = 0.1) -> dict[str, float]:
    return {"recall@5": recall, "mrr": mrr, "se": se}


def test_one_seed_has_the_error_of_its_targets_alone() -> None:
    assert over_seeds([run(0.2, 0.01)], 5) == {"recall@5": 0.2, "mrr": 0.1, "se": 0.01, "seed_sd": 0.0}


def test_seeds_add_the_variance_of_their_mean_to_that_of_the_targets() -> None:
    found = over_seeds([run(0.20, 0.010, 0.1), run(0.22, 0.012, 0.2), run(0.27, 0.014, 0.6)], 5)
    sd = math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2)
    assert found["recall@5"] == pytest.approx(0.23)
    assert found["mrr"] == pytest.approx(0.3)
    assert found["seed_sd"] == pytest.approx(sd, abs=1e-5)
    assert found["se"] == pytest.approx(math.sqrt(0.012**2 + sd**2 / 3), abs=1e-5)


def test_seeds_that_agree_add_no_error_and_do_not_lessen_that_of_the_targets() -> None:
    """All seeds rank the same positives: more of them are no more data."""
    assert over_seeds([run(0.2, 0.01)] * 4, 5)["se"] == 0.01
