"""Figures of a comparison: against sums by hand, and against chance."""

import math
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from agents.trial import Target
from cli.comparison import BETTER, DECIDES, LEAST_USERS, SAME, UNKNOWN, Comparison, compared, gained, mean_of_users
from cli.positions import metrics
from cli.whatif_picture import draw
from cli.whatif_view import show
from state.arms import ABSENT


def made(live: list[int], candidate: list[int], users: list[int], cold: int = 0) -> Comparison:
    targets = [
        Target(0, number, user, 1_000 * number, number < cold, False, False) for number, user in enumerate(users)
    ]
    return compared(targets, {"live": live, "candidate": candidate}, {"live": 0.5, "candidate": 0.25}, 3)


def test_what_targets_gain_adds_up_to_the_metrics() -> None:
    places = np.array([0, 3, ABSENT, 9, ABSENT, 1], np.int64)
    means = metrics(places, 10)
    for metric in ("recall@10", "ndcg@10", "mrr"):
        assert round(float(gained(places, metric).mean()), 5) == means[metric]


def test_the_error_of_users_of_one_target_is_the_usual_one() -> None:
    values = np.random.default_rng(1).normal(size=500)
    found = mean_of_users(values, np.arange(500, dtype=np.uint64))
    assert found.value == pytest.approx(values.mean())
    assert found.error == pytest.approx(values.std(ddof=1) / math.sqrt(500))


def test_targets_of_one_user_that_are_alike_count_as_one() -> None:
    values = np.repeat(np.random.default_rng(2).normal(size=100), 20)
    users = np.repeat(np.arange(100, dtype=np.uint64), 20)
    alone = mean_of_users(values[::20], users[::20])
    together = mean_of_users(values, users)
    assert together.error == pytest.approx(alone.error)
    assert together.freedom == 99


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Users differ in their mean and in how many targets they have."""
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(400):
        counts = rng.integers(1, 9, 120)
        users = np.repeat(np.arange(120, dtype=np.uint64), counts)
        values = rng.normal(size=120)[users.astype(np.int64)] + rng.normal(size=len(users))
        low, high = mean_of_users(values, users).interval or (1.0, -1.0)
        held += low <= 0.0 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_a_verdict_needs_users() -> None:
    hits, misses = [0] * 200, [ABSENT] * 200
    few, many = [n % (LEAST_USERS - 1) for n in range(200)], [n % 50 for n in range(200)]
    assert made(misses, hits, few).verdict == UNKNOWN
    assert made(misses, hits, few).to_json()["difference"][DECIDES] == {
        "value": 1.0,
        "se": None,
        "low": None,
        "high": None,
    }
    assert made(misses, hits, many).verdict == BETTER
    assert made(hits, hits, many).verdict == SAME


def test_json_has_both_and_their_difference_by_group() -> None:
    found = made([0, ABSENT] * 50, [0] * 100, list(range(100)), cold=40).to_json()
    assert found["verdict"] == BETTER
    assert (found["n"], found["users"], found["refused"]) == (100, 100, 3)
    assert found["arms"]["live"][DECIDES] == 0.5
    assert found["difference"][DECIDES]["value"] == 0.5
    assert found["difference"][DECIDES]["low"] > 0.3
    assert (found["cold"]["n"], found["warm"]["n"]) == (40, 60)
    assert "young" not in found
    assert found["coverage"] == {"live": 0.5, "candidate": 0.25}


@pytest.mark.parametrize("n", [1, 40, 900])
def test_a_picture_of_any_number_of_lists(n: int) -> None:
    found = made([0] * n, [number % 3 - 1 for number in range(n)], list(range(n)))
    picture = draw(found)
    assert picture.png.startswith(b"\x89PNG")
    assert f"{n:,} lists: live 1.0000" in picture.alt
    assert draw(found).png == picture.png


def test_a_table_says_it_in_words() -> None:
    console = Console(width=100, record=True, highlight=False, markup=False, file=StringIO())
    show(console, made([0, ABSENT] * 50, [0] * 100, list(range(100)), cold=40), {"exploration": 0.1})
    said = console.export_text()
    for expected in (
        "recall@10 (hit rate)",
        "0.5000",
        "1.0000",
        "+0.5000",
        "cold users",
        "exploration: 0.1",
        "3 events that lists",
    ):
        assert expected in said
    assert "Better: the candidate would have listed more" in said
    assert "n = 100 lists of 100 users" in said
