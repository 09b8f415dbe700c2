"""A change of what lists find is found soon, once and in its direction; chance is none."""

import numpy as np
import pytest

from agents.drift import Change, Drift


def changes(drift: Drift, share: float, n: int, seed: int) -> list[tuple[int, Change]]:
    """What is found in `n` draws of a share, with its place."""
    hits = np.random.default_rng(seed).random(n) < share
    found = ((place, drift.add(float(hit))) for place, hit in enumerate(hits.tolist()))
    return [(place, change) for place, change in found if change is not None]


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.4])
def test_what_stays_the_same_has_no_changes(share: float) -> None:
    assert [changes(Drift(), share, 20_000, seed) for seed in range(5)] == [[]] * 5


@pytest.mark.parametrize(("before", "after", "direction"), [(0.1, 0.04, "down"), (0.1, 0.2, "up"), (0.3, 0.0, "down")])
def test_a_change_is_found_soon_and_in_its_direction(before: float, after: float, direction: str) -> None:
    drift = Drift()
    assert changes(drift, before, 5_000, 1) == []
    found = changes(drift, after, 3_000, 2)
    assert found[0][0] < 1_500
    assert {change.direction for _, change in found} == {direction}
    assert len(found) <= 3
    assert drift.changes[direction] == len(found)
    assert drift.mean == pytest.approx(after, abs=0.02)
    # And no more of it.
    assert changes(drift, after, 10_000, 3) == []


def test_nothing_yet_is_nothing() -> None:
    assert (Drift().mean, Drift().changes) == (0.0, {"up": 0, "down": 0})
