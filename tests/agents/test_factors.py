"""Factor steps: what is served is what the owners have applied plus what is still under way, and in the end just that."""

import random

import numpy as np

from tests.agents.world import EVIDENCE, World, liked, world
from topics.evidence import FACTORS, unpack
from topics.specs import INTERACTIONS

COLUMNS = ("q", "b", "acc")


def under_way(state: World) -> dict[str, "np.typing.NDArray[np.float64]"]:
    """Sums of steps of this process that no owner has applied: buffered, or in blocks ahead of the owner's position."""
    replica = state.engine.replica
    sums = {name: np.zeros(state.engine.mf.columns[name].shape, np.float64) for name in COLUMNS}
    for shard in state.engine.shards.values():
        rows, steps = shard.pending.steps.peek()
        for name, column in zip(COLUMNS, (steps[:, :FACTORS], steps[:, FACTORS], steps[:, FACTORS + 1]), strict=True):
            sums[name][rows] += column
        for record in state.due(EVIDENCE, shard.partition):
            block = unpack(record.value or b"")
            if block.origin == state.engine.origin:
                rows = np.array([replica.find(video_id) for video_id in block.ids])
                for name in COLUMNS:
                    np.add.at(sums[name], rows[block.steps["item"]], block.steps[name])
    return sums


def check(state: World) -> None:
    n = len(state.engine.replica)
    for name, steps in under_way(state).items():
        served, base = state.engine.mf.columns[name][:n], state.engine.replica.base[name][:n]
        np.testing.assert_allclose(served, base + steps[:n], rtol=1e-4, atol=2e-5)


def test_served_factors_are_the_owners_plus_steps_under_way() -> None:
    random_ = random.Random(1)
    state = world(partitions=3)
    state.send(*(liked(f"user{random_.randrange(30)}", f"video{random_.randrange(60)}", n) for n in range(800)))
    moved = 0.0
    for step in range(120):
        partition = random_.choice(state.partitions)
        match random_.randrange(4):
            case 0:
                state.checkpoint(partition)
            case 1:
                state.step(EVIDENCE, partition, 1)
            case _:
                state.step(INTERACTIONS, partition, 15)
        if step % 10 == 0:
            check(state)
            moved = max(moved, float(np.abs(under_way(state)["q"]).max()))
    assert moved > 0.1
    state.settle()
    check(state)
    assert not np.any(under_way(state)["q"])


def test_steps_of_a_killed_process_arrive_in_the_next_one() -> None:
    """Blocks that were committed but not applied come back into a process that has never learned them."""
    state = world(partitions=2)
    state.send(*(liked(f"user{n % 9}", f"video{n % 13}", n) for n in range(300)))
    for partition in state.partitions:
        state.step(INTERACTIONS, partition)
        state.checkpoint(partition)
    before = {f"video{n}": state.engine.mf.columns["q"][state.row(f"video{n}")].copy() for n in range(13)}
    state.restart()
    state.settle()
    check(state)
    for video_id, q in before.items():
        np.testing.assert_allclose(state.engine.mf.columns["q"][state.row(video_id)], q, rtol=1e-4, atol=1e-5)


def test_a_step_that_is_not_finite_spoils_no_row_and_costs_no_count() -> None:
    state = world(partitions=1)
    state.send(liked("ann", "a", 1), liked("ann", "b", 2))
    state.step(INTERACTIONS, 0)
    state.engine.shards[0].pending.steps.sums[0, 3] = np.nan
    state.settle()
    assert all(np.isfinite(base).all() for base in state.engine.replica.base.values())
    assert state.engine.popularity.columns["plays"].sum() == 2
    assert state.totals()["unsound_steps"] == 1


def test_bad_blocks_are_dead_letters_and_the_next_block_is_applied() -> None:
    state = world(partitions=1)
    state.send(liked("ann", "a", 1))
    for value in (None, b"", b"no block"):
        state.append(EVIDENCE, 0, None, value)
    state.settle()
    assert state.engine.popularity.columns["plays"].sum() == 1
    assert [(letter.reason, letter.topic) for letter in state.dead] == [("malformed_block", EVIDENCE)] * 3
    assert state.totals()["dead_blocks"] == 3
