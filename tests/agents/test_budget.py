"""The budget of measuring: what is spent stays within its share of the CPU time, in bursts that hold the loop for little."""

import numpy as np
import pytest

from agents.budget import BURST_S, Budget


class Clock:
    """CPU time of a process of two threads, of which one does what is measured."""

    def __init__(self) -> None:
        self.process_s = self.thread_s = 0.0

    def work(self, seconds: float) -> None:
        self.process_s += seconds
        self.thread_s += seconds


def run(share: float, cost_s: float, wanted: int, other_s: float, batches: int) -> tuple[float, int, int, float]:
    """Batches of `wanted` pieces that cost `cost_s` each, and `other_s` of other work: spent, done, wanted, longest hold."""
    clock = Clock()
    budget = Budget(share, lambda: clock.process_s, lambda: clock.thread_s)
    rng = np.random.default_rng(1)
    done = 0
    longest_s = 0.0
    for _ in range(batches):
        clock.work(other_s / 2)
        clock.process_s += other_s / 2
        budget.begin()
        drawn = int((rng.random(wanted) < budget.rate(wanted)).sum())
        clock.work(drawn * cost_s)
        budget.end(drawn)
        done += drawn
        longest_s = max(longest_s, drawn * cost_s)
    assert budget.spent_s == pytest.approx(done * cost_s)
    return budget.spent_s / budget.process_s, done, wanted * batches, longest_s


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
@pytest.mark.parametrize(
    ("cost_s", "wanted", "other_s"), [(0.0007, 250, 0.012), (0.005, 40, 0.003), (0.0007, 1, 0.0002)]
)
def test_no_more_than_the_share_is_spent_and_nearly_all_of_it(
    share: float, cost_s: float, wanted: int, other_s: float
) -> None:
    spent, done, of, longest_s = run(share, cost_s, wanted, other_s, 20_000)
    assert done < of
    assert 0.85 * share < spent < 1.02 * share
    # By chance more are drawn than expected.
    assert longest_s < 3 * BURST_S + 8 * cost_s


def test_where_there_is_time_every_piece_is_done() -> None:
    spent, done, of, _ = run(0.1, 0.0007, 1, 0.05, 500)
    assert done == of
    assert spent < 0.1


def test_the_whole_share_does_everything_whatever_it_takes() -> None:
    _, done, of, _ = run(1.0, 0.01, 50, 0.001, 100)
    assert done == of


def test_no_share_does_nothing() -> None:
    assert run(0.0, 0.001, 50, 0.01, 100)[1] == 0
