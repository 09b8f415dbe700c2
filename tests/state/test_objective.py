"""What lists are ordered by."""

import numpy as np
import pytest

from online_models.heads import HEADS, INPUTS
from state.objective import BadObjective, Objective
from state.ranking import score_rows
from state.types import Float64Array
from tests.agents.test_ranking import busy
from tests.agents.world import World


def test_weights_are_read_by_name() -> None:
    found = Objective.parse(" choice = 1, like=0.5 ,skip=-2e0")
    assert found.choice == 1.0
    assert dict(zip(HEADS, found.heads, strict=True)) == {
        "long_view": 0.0, "like": 0.5, "click": 0.0, "skip": -2.0, "watch_share": 0.0,
    }  # fmt: skip
    assert found.needs_heads
    assert Objective.parse("choice=1") == Objective()
    assert not Objective().needs_heads


@pytest.mark.parametrize(
    "text", ["", "choice", "choice=", "likes=1", "like=nan", "like=inf", "like=x", "choice=0", ",", "choice=1,"]
)
def test_what_is_no_objective_says_what_there_is(text: str) -> None:
    with pytest.raises(BadObjective, match=r"name=weight|all weights are 0"):
        Objective.parse(text)


def test_scores_are_weighted_and_what_must_not_be_listed_stays_out() -> None:
    choice = np.array([1.0, 2.0, -np.inf], np.float32)
    logits = np.ones((3, len(HEADS)), np.float32)
    found = Objective.parse("choice=0.5,like=2,skip=-1").combine(choice, logits)
    np.testing.assert_allclose(found, [1.5, 2.0, -np.inf])
    assert Objective.parse("like=1").combine(choice, logits).tolist() == [1.0, 1.0, -np.inf]


def ordered(state: World, objective: str) -> list[str]:
    options = state.options.__class__(**{**vars(state.options), "objective": Objective.parse(objective)})
    state.engine.options = options
    n = len(state.engine.replica)
    found = score_rows(state.engine, state.engine.stranger(), state.engine.replica.active[:n].copy(), n)
    return state.engine.replica.ids_of(found.rows.tolist())


def test_a_head_with_weight_orders_lists() -> None:
    state = busy()
    # Videos of many plays are liked, all else is not.
    rng = np.random.default_rng(1)
    heads = state.engine.heads
    for _ in range(500):
        x = rng.normal(2.0, 1.0, len(INPUTS)).astype(np.float32)
        outcomes: Float64Array = np.full(len(HEADS), np.nan)
        outcomes[HEADS.index("like")] = float(x[INPUTS.index("count")] > 2.0)
        heads.learn(0, x, outcomes)
    plays = state.engine.popularity.columns["plays"]
    by_like = ordered(state, "like=1")
    against = ordered(state, "like=-1")
    most = [plays[state.row(video)] for video in by_like]
    assert np.corrcoef(most, np.arange(len(most)))[0, 1] < -0.5
    assert by_like != against
    assert set(by_like) == set(against)
