"""Neighbour rows that are in every fourth checkpoint only: whatever crash comes between, no link is lost or counted twice."""

import itertools
import random

import pytest

from state import shard as shards
from state.rows import CUT_KEY, decode_cut
from tests.agents.test_micro_batches import links
from tests.agents.world import EVIDENCE, NOW_MS, World, random_events, world
from topics.catalog import Video
from topics.specs import INTERACTIONS, VIDEOS

PARTITIONS = 3


@pytest.fixture(autouse=True)
def _no_list_is_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "LISTS_FEW", 0)


def lists(state: World) -> dict[str, dict[str, float]]:
    return {
        f"{name} {video_id}": links(state, name, str(video_id))
        for name in ("covisitation", "markov")
        for video_id in state.engine.replica.ids
        if video_id is not None
    }


@pytest.mark.parametrize("seed", range(6))
def test_kills_between_checkpoints_lose_and_double_no_link(seed: int) -> None:
    events = random_events(seed, 1_500)
    calm, shaken = world(PARTITIONS), world(PARTITIONS)
    for state in (calm, shaken):
        state.send(*events)
    calm.settle()
    random_ = random.Random(seed)
    behind = kills = 0
    for _ in range(400):
        partition = random_.choice(shaken.partitions)
        match random_.randrange(8):
            case 0 | 1 | 2:
                shaken.step(INTERACTIONS, partition, 20)
            case 3 | 4:
                shaken.step(EVIDENCE, partition, random_.randrange(1, 4))
            case 5 | 6:
                shaken.checkpoint(partition)
                data = shaken.stores[partition][0].get(CUT_KEY)
                behind += data is not None and decode_cut(data).lists is not None
            case _:
                if random_.random() < 0.4:
                    shaken.restart()
                    kills += 1
    assert behind > 20, "lists were in all checkpoints"
    assert kills > 8
    shaken.settle()
    expected, found = lists(calm), lists(shaken)
    assert found.keys() == expected.keys()
    for name, weights in expected.items():
        assert found[name] == pytest.approx(weights, rel=1e-5), name
    # What another process reads is the same: once nothing is left to learn, the lists are written, too.
    shaken.restart()
    assert all(shard.lists is None for shard in shaken.engine.shards.values())
    for name, weights in lists(shaken).items():
        assert weights == pytest.approx(expected[name], rel=1e-5), name


def busy(state: World, number: int) -> bool:
    """A checkpoint with something learned in it; whether it left lists behind."""
    state.send(*random_events(number, 30))
    state.step(INTERACTIONS, 0)
    state.checkpoint(0)
    state.step(EVIDENCE, 0)
    return behind(state)


def behind(state: World) -> bool:
    """Whether a checkpoint that is made now leaves lists behind."""
    state.checkpoint(0)
    data = state.stores[0][0].get(CUT_KEY)
    return data is not None and decode_cut(data).lists is not None


def test_lists_are_in_the_last_checkpoint_of_a_shard_and_where_a_video_is_deleted() -> None:
    state = world(1)
    numbers = itertools.count()
    assert any(busy(state, next(numbers)) for _ in range(4))
    while not busy(state, next(numbers)):
        pass
    shard = state.engine.shards[0]
    shard.leaving = True
    assert not busy(state, next(numbers))
    shard.leaving = False

    while not busy(state, next(numbers)):
        pass
    state.put("video3", Video(published_ms=NOW_MS))
    state.put("video3", None)
    state.step(VIDEOS, 0)
    assert not behind(state)
