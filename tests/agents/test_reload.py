"""State that was written and read back is the state that was written."""

import numpy as np
import pytest

from state import rows
from state.lists import recommend, trending
from tests.agents.world import World, random_events, world
from topics.catalog import Video


def filled(partitions: int, *, titles: bool = True) -> World:
    state = world(partitions)
    for n in range(30):
        text = Video(title=f"Film {n % 7}", categories=("film",), published_ms=n, hidden=n == 5)
        state.put(f"video{n}", text if titles else Video(published_ms=n, hidden=n == 5))
    state.send(*random_events(5, 1_500))
    state.settle()
    state.put("video3", None)
    state.settle()
    return state


def everything(state: World) -> dict[int, tuple[dict[bytes, bytes], dict[bytes, bytes]]]:
    return {
        partition: (dict(users.scan(b"")), dict(items.scan(b""))) for partition, (users, items) in state.stores.items()
    }


@pytest.mark.parametrize("partitions", [1, 4])
def test_rows_written_again_after_a_restart_are_the_same_bytes(partitions: int) -> None:
    state = filled(partitions)
    before = everything(state)
    assert sum(key.startswith(rows.NEIGHBOURS) for _, items in before.values() for key in items) > 30
    state.restart()
    replica = state.engine.replica
    for shard in state.engine.shards.values():
        for key in before[shard.partition][0]:
            if key.startswith(rows.USER):
                shard.hold_user(state.engine.users, key[2:])
        owned = replica.rows_in(shard.partition)
        shard.dirty_items.add(owned)
        listed = [
            rows.NEIGHBOURS + str(replica.ids[row]).encode() in before[shard.partition][1] for row in owned.tolist()
        ]
        shard.dirty_neighbours.add(owned[listed])
    state.checkpoint_all()
    assert everything(state) == before


def test_a_restart_changes_no_answer() -> None:
    """Videos without text: document frequencies are counted anew, in the order in which the catalogue is read."""
    state = filled(3, titles=False)

    def answers() -> list[list[tuple[str | None, float]]]:
        engine = state.engine
        lists = [recommend(engine, f"user{n}", state.partition_of(f"user{n}"), 10)[0] for n in range(25)]
        return [[(engine.replica.ids[p.row], p.score) for p in listed] for listed in [*lists, trending(engine, 20)]]

    before = answers()
    assert all(before)
    state.restart()
    for expected, found in zip(before, answers(), strict=True):
        assert [video_id for video_id, _ in found] == [video_id for video_id, _ in expected]
        np.testing.assert_allclose(
            [score for _, score in found], [score for _, score in expected], rtol=1e-4, atol=1e-5
        )
