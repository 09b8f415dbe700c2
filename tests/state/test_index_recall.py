"""The index is judged by what exact search finds, and judging changes nothing."""

import numpy as np
import pytest

from state.engine import Engine
from state.index_recall import LATEST, IndexRecall
from tests.agents.world import World, liked, world


@pytest.fixture
def audience() -> World:
    made = world(partitions=2)
    rng = np.random.default_rng(3)
    made.send(*(liked(f"u{n % 40}", f"v{rng.integers(300)}", n) for n in range(1_200)))
    made.settle()
    return made


def index_all(engine: Engine) -> None:
    while engine.index.waiting:
        engine.index.refresh(engine.mf.columns["q"], engine.mf.columns["b"])


def test_without_a_graph_or_anybody_with_a_history_nothing_is_known(audience: World) -> None:
    judged = IndexRecall(1)
    assert judged.sample(world().engine) is None
    assert judged.sample(audience.engine) is None
    index_all(audience.engine)
    for partition in (0, 1):
        audience.engine.users.drop_partition(partition)
    assert judged.sample(audience.engine) is None
    assert np.isnan(judged.mean)


def test_a_whole_index_finds_what_exact_search_finds_and_half_of_one_does_not(audience: World) -> None:
    engine = audience.engine
    index_all(engine)
    judged = IndexRecall(1)
    shares = [judged.sample(engine) for _ in range(LATEST)]
    assert None not in shares
    assert judged.mean > 0.97
    hidden = engine.replica.active_rows()[::2]
    engine.index.remove(hidden.tolist())
    for _ in range(LATEST):
        judged.sample(engine)
    # Only the latest samples count.
    assert 0.3 < judged.mean < 0.7
    # What may not be listed is not missed.
    for row in hidden.tolist():
        engine.replica.mark_deleted(str(engine.replica.ids[row]))
    for _ in range(LATEST):
        judged.sample(engine)
    assert judged.mean > 0.97


def test_judging_changes_nothing(audience: World) -> None:
    engine = audience.engine
    index_all(engine)
    used, columns = engine.users.used_at.copy(), {name: c.copy() for name, c in engine.mf.columns.items()}
    one, other = IndexRecall(5), IndexRecall(5)
    assert [one.sample(engine) for _ in range(9)] == [other.sample(engine) for _ in range(9)]
    np.testing.assert_array_equal(engine.users.used_at, used)
    for name, column in columns.items():
        np.testing.assert_array_equal(engine.mf.columns[name], column)


def test_vectors_that_are_not_finite_are_found_by_nobody_and_missed_by_nobody(audience: World) -> None:
    engine = audience.engine
    index_all(engine)
    engine.mf.columns["q"][5] = np.nan
    judged = IndexRecall(1)
    for _ in range(LATEST):
        judged.sample(engine)
    assert judged.mean > 0.95
