"""What the agents have learned against an independent recount of the same log."""

import random

import numpy as np
import pytest

from cli.recount import COVISITS_HALF_LIFE, Recount
from state import rows
from state.replica import video_code
from state.users import DUPLICATE, IGNORED, KINDS
from tests.agents.world import EVIDENCE, NOW_MS, World, liked, random_events, world
from topics.interactions import Interaction
from topics.specs import INTERACTIONS

BAD_VALUES = [b"", b"{", b"[]", b"\xff\xfe", b'{"v": 2}', b'{"event_id": "e", "user_id": "u"}', b"null"]


def check(state: World, events: list[Interaction], dead: int = 0) -> None:
    recount = Recount(events)
    totals = state.totals()
    assert totals.get("dead", 0) == dead
    assert totals.get("duplicate", 0) == recount.outcomes[DUPLICATE]
    assert totals.get("ignored", 0) == recount.outcomes[IGNORED]
    assert sum(totals.get(name, 0) for name in ("learned", "ignored", "duplicate", "dead")) == len(events) + dead

    engine = state.engine
    for user_id, plain in recount.users.items():
        slot = engine.users.slot_of(user_id, state.partition_of(user_id))
        assert [engine.replica.ids[row] for row in engine.users.history[slot] if row >= 0] == plain.history, user_id
        assert engine.users.seen(slot).tolist() == [video_code(v) | int(flag) for v, flag in plain.seen.items()]
        assert engine.users.counts[slot].tolist() == [plain.counts[kind] for kind in range(KINDS)]
        stored = state.stores[state.partition_of(user_id)][0].get(rows.USER + user_id.encode())
        assert stored is not None
        assert rows.read_user(stored)["counts"].tolist() == [plain.counts[kind] for kind in range(KINDS)]

    plays = engine.popularity.columns["plays"]
    videos = {video_id for video_id, _ in recount.items}
    for video_id in videos:
        row = state.row(video_id)
        assert engine.replica.counts[row].tolist() == [recount.items[video_id, kind] for kind in range(KINDS)], video_id
        assert plays[row] == recount.plays[video_id]

    found: dict[tuple[str, str], float] = {}
    columns = engine.covisitation.columns
    for row in range(len(engine.replica)):
        for neighbour, weight in zip(columns["neighbour"][row], columns["weight"][row], strict=True):
            if neighbour >= 0:
                at = columns["weight_at"][row]
                growth = 2.0 ** ((ticks(state, NOW_MS) - at) / engine.covisitation.rule.half_life)
                found[str(engine.replica.ids[row]), str(engine.replica.ids[neighbour])] = float(weight) / growth
    expected = {
        (source, target): total.as_of(NOW_MS, COVISITS_HALF_LIFE * recount.tick_ms)
        for source, targets in recount.covisits.items()
        for target, total in targets.items()
    }
    assert found.keys() == expected.keys()
    assert [found[pair] for pair in sorted(found)] == pytest.approx(
        [expected[pair] for pair in sorted(found)], rel=1e-4
    )


def ticks(state: World, at_ms: int) -> float:
    return float(state.engine.ticks(np.array(at_ms)))


@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_steps_and_checkpoints_gives_the_recount(seed: int) -> None:
    """Shards advance by themselves, in batches of any size, over a log with malformed and redelivered records."""
    random_ = random.Random(seed)
    events = random_events(seed, 600)
    state = world(partitions=1 + seed, max_users=[1_000, 60, 200, 1_000][seed])
    dead = 0
    for event in events:
        state.send(event)
        if random_.random() < 0.05:
            partition = random_.choice(state.partitions)
            key = random_.choice([None, b"", event.user_id.encode(), b"\xff", b"x" * 200])
            state.append(INTERACTIONS, partition, key, random_.choice(BAD_VALUES))
            dead += 1
    for _ in range(400):
        partition = random_.choice(state.partitions)
        match random_.randrange(5):
            case 0:
                state.checkpoint(partition)
            case 1:
                state.step(EVIDENCE, partition, random_.randrange(1, 4))
            case 2:
                log = state.log(INTERACTIONS, partition)
                done = [r for r in log if r.offset < state.engine.shards[partition].next.get(INTERACTIONS, 0)]
                # Faust seeks again: records that are in the state, and some that are not yet.
                state.give(INTERACTIONS, partition, done[-5:] + list(state.due(INTERACTIONS, partition)[:3]))
            case _:
                state.step(INTERACTIONS, partition, random_.randrange(1, 30))
    state.settle()
    check(state, events, dead)
    assert len(state.dead) == dead
    assert {letter.value for letter in state.dead} <= set(BAD_VALUES)


@pytest.mark.parametrize("seed", range(4))
def test_kills_at_any_step_give_the_recount(seed: int) -> None:
    """A kill forgets what no checkpoint holds; counters, histories and links come out as if nothing had happened."""
    random_ = random.Random(seed + 100)
    events = random_events(seed + 100, 500)
    state = world(partitions=3, max_users=[1_000, 100][seed % 2])
    state.send(*events)
    for _ in range(200):
        partition = random_.choice(state.partitions)
        match random_.randrange(10):
            case 0:
                state.restart()
            case 1 | 2 | 3:
                state.checkpoint(partition)
            case 4 | 5:
                state.step(EVIDENCE, partition, random_.randrange(1, 4))
            case _:
                state.step(INTERACTIONS, partition, random_.randrange(1, 30))
    state.restart()
    state.settle()
    assert state.processes > 5
    check(state, events)


def test_a_record_is_one_of_four_things_and_the_next_one_is_handled() -> None:
    state = world(partitions=1)
    for value in BAD_VALUES:
        state.append(INTERACTIONS, 0, b"ann", value)
    state.append(INTERACTIONS, 0, None, b'{"event_id":"a","user_id":"ann","video_id":"v","event":"like","at_ms":1}')
    state.send(liked("ann", "v1", 1), liked("ann", "v1", 1), liked("ann", "v1", 2), liked("ann", "v2", 3, event="view"))
    state.settle()
    totals = state.totals()
    assert {name: totals[name] for name in ("learned", "ignored", "duplicate", "dead")} == {
        "learned": 1, "ignored": 2, "duplicate": 1, "dead": len(BAD_VALUES) + 1,
    }  # fmt: skip
    assert [letter.value for letter in state.dead[: len(BAD_VALUES)]] == BAD_VALUES
    assert [letter.offset for letter in state.dead] == [r.offset for r in state.log(INTERACTIONS, 0)[: len(state.dead)]]
    assert state.dead[-1].reason == "key_mismatch"
    assert sum(count for name, count in totals.items() if name.startswith("dead.")) == totals["dead"]


def test_evidence_of_one_shard_reaches_the_videos_of_all() -> None:
    state = world(partitions=4)
    videos = [f"video{n}" for n in range(40)]
    assert {state.partition_of(v) for v in videos} == set(state.partitions)
    state.send(*(liked("ann", video, n) for n, video in enumerate(videos)))
    home = state.partition_of("ann")
    state.step(INTERACTIONS, home)
    assert not state.engine.popularity.columns["plays"].any()
    taken = state.checkpoint(home)
    assert taken is not None
    assert {target for target, _ in taken.blocks} == set(state.partitions)
    for partition in state.partitions:
        state.step(EVIDENCE, partition)
        state.checkpoint(partition)
        for video in videos:
            stored = state.stores[partition][1].get(rows.ITEM + video.encode())
            assert (stored is not None) == (state.partition_of(video) == partition)
            if stored is not None:
                assert rows.read_item(stored)["plays"] == 1
