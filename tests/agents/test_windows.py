"""Rolling figures of scored positives, against plain computations over the same samples."""

import math

import numpy as np
import pytest

from agents import windows as module
from agents.windows import LEAST_SCORED, WINDOWS, Sample, Windows, gini
from state.arms import ABSENT

ARMS = ("served", "popularity", "item_knn")
VIDEOS = 40


def samples(n: int, seed: int = 1) -> list[Sample]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        places = {arm: int(place) for arm, place in zip(ARMS, rng.integers(ABSENT, 10, len(ARMS)), strict=True)}
        listed = rng.choice(VIDEOS, int(rng.integers(5, 11)), replace=False).astype(np.int32)
        candidate = rng.random() < 0.8
        made.append(
            Sample(
                places,
                listed,
                float(rng.uniform(2, 12)),
                float(rng.uniform(0, 1)) if candidate else math.nan,
                bool(candidate and rng.random() < 0.4),
                float(rng.uniform(1, 9)) if candidate else math.nan,
                float(rng.integers(0, 500)),
                float(rng.integers(0, 2_000)),
            )
        )
    return made


def filled(given: list[Sample]) -> Windows:
    found = Windows(ARMS, 10)
    for sample in given:
        found.add(sample)
    return found


@pytest.mark.parametrize("n", [1, 999, 2_500, 23_001])
def test_figures_are_those_of_the_latest_samples(n: int) -> None:
    given = samples(n)
    found = filled(given)
    for window in WINDOWS:
        latest = given[-window:]
        figures = found.figures(window, VIDEOS)
        assert figures["n"] == len(latest)
        for arm in ARMS:
            places = [sample.places[arm] for sample in latest]
            assert figures["recall"][arm] == pytest.approx(sum(place != ABSENT for place in places) / len(places))
            gains = [1 / math.log2(place + 2) for place in places if place != ABSENT]
            assert figures["ndcg"][arm] == pytest.approx(sum(gains) / len(places))
        among = [sample for sample in latest if not math.isnan(sample.loss)]
        assert figures["candidate_ratio"] == pytest.approx(len(among) / len(latest))
        if among:
            assert figures["log_loss"] == pytest.approx(np.mean([sample.loss for sample in among]), rel=1e-5)
        if any(sample.found for sample in among):
            expected = sum(sample.predicted for sample in among) / sum(sample.found for sample in among)
            assert figures["calibration_ratio"] == pytest.approx(expected, rel=1e-4)
        counts = np.bincount(np.concatenate([sample.listed for sample in latest]), minlength=VIDEOS)
        assert figures["coverage_ratio"] == (counts > 0).mean()
        assert figures["gini"] == pytest.approx(plain_gini(counts.tolist()))
        assert figures["novelty_bits"] == pytest.approx(np.mean([sample.novelty_bits for sample in latest]), rel=1e-5)
        for part in ("own_lag", "shared_lag"):
            mean = np.mean([getattr(sample, part) for sample in latest])
            assert figures[f"{part}_events"] == pytest.approx(mean, rel=1e-5)
    for arm in ARMS:
        assert found.hits[arm] == sum(sample.places[arm] != ABSENT for sample in given)


def plain_gini(counts: list[int]) -> float:
    """Half the mean difference of all pairs, over the mean."""
    pairs = sum(abs(a - b) for a in counts for b in counts)
    return pairs / (2 * len(counts) * sum(counts))


def test_gini_of_equal_and_of_one() -> None:
    assert gini(np.full(10, 3), 10) == pytest.approx(0.0)
    assert gini(np.array([7]), 10) == pytest.approx(0.9)
    assert gini(np.empty(0, np.int64), 10) == 0.0


def test_without_samples_nothing_is_claimed() -> None:
    figures = Windows(ARMS, 10).figures(WINDOWS[0], VIDEOS)
    assert figures["recall"]["served"] == 0.0
    assert math.isnan(figures["log_loss"])
    assert math.isnan(figures["calibration_ratio"])


def test_memory_does_not_grow_with_what_is_scored() -> None:
    found = Windows(ARMS, 10)
    arrays = {name: value.nbytes for name, value in vars(found).items() if isinstance(value, np.ndarray)}
    for sample in samples(300) * 50:
        found.add(sample)
    after = {name: value.nbytes for name, value in vars(found).items() if isinstance(value, np.ndarray)}
    assert after == arrays
    assert sum(arrays.values()) < 2_000_000
    assert not [name for name, value in vars(found).items() if isinstance(value, list | set)]


def hits_only(served: bool, popular: bool) -> Sample:
    places = {"served": 0 if served else ABSENT, "popularity": 0 if popular else ABSENT, "item_knn": ABSENT}
    return Sample(places, np.arange(10, dtype=np.int32), 1.0, 0.1, served, 1.0, 0.0, 0.0)


@pytest.mark.parametrize("served_share", [0.02, 0.1, 0.3])
def test_errors_below_are_those_of_the_paired_difference(served_share: float) -> None:
    rng = np.random.default_rng(2)
    pairs = [(bool(rng.random() < served_share), bool(rng.random() < 0.1)) for _ in range(800)]
    found = filled([hits_only(*pair) for pair in pairs])
    difference = np.array([popular - served for served, popular in pairs], np.float64)
    expected = difference.mean() / (difference.std() / math.sqrt(len(pairs)))
    assert found.errors_below(("popularity", "item_knn"), module.WINDOWS[0]) == pytest.approx(expected)


def test_few_samples_are_not_below_anything() -> None:
    few = filled([hits_only(served=False, popular=True)] * (LEAST_SCORED - 1))
    assert few.errors_below(("popularity",), WINDOWS[0]) == 0.0
    few.add(hits_only(served=True, popular=True))
    assert few.errors_below(("popularity",), WINDOWS[0]) > 2.0
