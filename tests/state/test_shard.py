"""What a shard hands to a checkpoint."""

from collections import Counter

import numpy as np

from state import rows
from state.engine import Engine, EngineOptions
from state.pending import BLOCK_BYTES, Pending
from state.rows import Cut
from state.shard import Shard
from state.store import MemoryStore
from topics.evidence import unpack
from topics.partitions import partition_of

PARTITIONS = 3


def engine_of(max_videos: int = 50_000) -> Engine:
    engine = Engine(EngineOptions(partitions=PARTITIONS, max_videos=max_videos), b"origin")
    for partition in range(PARTITIONS):
        engine.add_shard(Shard(partition, MemoryStore(), MemoryStore(), Cut({"interactions": 5}, {"learned": 2})))
    return engine


def test_a_fresh_shard_has_nothing_to_write_and_goes_on_from_its_cut() -> None:
    shard = engine_of().shards[1]
    assert (shard.next, shard.totals) == ({"interactions": 5}, {"learned": 2})
    before = shard.dirty
    shard.advance("interactions", 9)
    assert (before, shard.dirty) == (False, True)
    assert shard.next["interactions"] == 10


def test_swap_takes_everything_once_and_leaves_users_pinned() -> None:
    engine = engine_of()
    shard, users = engine.shards[0], engine.users
    slot = shard.hold_user(users, b"ann")
    assert shard.hold_user(users, b"ann") == slot
    row = engine.replica.row_of("a")
    shard.dirty_items.add(np.array([row], np.int32))
    shard.dirty_neighbours.add(np.array([row], np.int32))
    shard.item_rows[b"m:a"] = b"record"
    shard.user_rows[b"a:ann"] = None
    shard.totals["learned"] += 1
    shard.advance("videos", 3)
    taken = shard.swap(users, engine.replica, b"origin")
    assert [key for key, _ in taken.users] == [b"u:ann", b"a:ann", rows.CUT_KEY]
    assert [key for key, _ in taken.items] == [b"m:a", b"i:a", b"n:a"]
    assert taken.cut == Cut({"interactions": 5, "videos": 4}, {"learned": 3})
    assert rows.decode_cut(taken.users[-1][1] or b"") == taken.cut
    assert (taken.pinned.tolist(), users.pins[slot], users.pinned) == ([slot], 1, 1)
    assert not shard.dirty

    # The user changes again while the first checkpoint is on its way: each holds them by itself.
    shard.hold_user(users, b"ann")
    assert users.pins[slot] == 2
    users.unpin(taken.pinned)
    assert (users.pins[slot], users.pinned) == (1, 1)
    second = shard.swap(users, engine.replica, b"origin")
    assert [key for key, _ in second.users] == [b"u:ann", rows.CUT_KEY]
    assert (second.items, second.blocks) == ([], [])
    users.unpin(second.pinned)
    assert (users.pins[slot], users.pinned) == (0, 0)
    assert second.cut.totals == {"learned": 3}


def test_a_deleted_video_has_no_rows_in_a_checkpoint() -> None:
    engine = engine_of()
    shard = engine.shards[0]
    row = engine.replica.row_of("a")
    shard.dirty_items.add(np.array([row], np.int32))
    shard.dirty_neighbours.add(np.array([row], np.int32))
    engine.replica.mark_deleted("a")
    assert shard.swap(engine.users, engine.replica, b"origin").items == []


def test_a_slot_that_was_let_go_is_not_unpinned_for_its_next_user() -> None:
    """A shard may leave while its checkpoint is on its way; the slot then belongs to somebody else, or to nobody."""
    engine = engine_of()
    slot = engine.shards[0].hold_user(engine.users, b"ann")
    taken = engine.shards[0].swap(engine.users, engine.replica, b"origin")
    engine.users.drop_partition(0)
    engine.users.unpin(taken.pinned)
    assert (engine.users.pins[slot], engine.users.pinned) == (0, 0)
    assert engine.shards[1].hold_user(engine.users, b"bob") == slot
    assert (engine.users.pins[slot], engine.users.pinned) == (1, 1)


def test_blocks_are_cut_by_owner_and_keep_every_entry_in_order() -> None:
    engine = engine_of()
    replica = engine.replica
    names = [f"video{n}" for n in range(100)]
    numbers = np.array([replica.row_of(name) for name in names], np.int32)
    pending = Pending()
    for part in np.array_split(numbers, 3):
        pending.add_events(part, np.full(len(part), 3), np.ones(len(part)), part.astype(np.int64) + 10**12)
        histories = np.full((len(part), 20), -1, np.int32)
        histories[1:, 0] = part[:-1]
        words = np.stack([part, part.astype(np.int64) + 10**12], axis=1).astype(np.uint64)
        pending.add_links(part, histories, part.astype(np.int64), words)
    pending.steps.expect(len(replica), len(numbers))
    pending.steps.rows[: len(numbers)], pending.steps.sums[: len(numbers)] = numbers, 2.0
    pending.steps.used[0] = len(numbers)
    seen: dict[str, list[str]] = {"events": [], "steps": []}
    linked: Counter[tuple[str, str]] = Counter()
    for target, block in pending.blocks(replica, b"origin", 2):
        got = unpack(block.pack())
        assert (got.origin, got.sender) == (b"origin", 2)
        for column, key in (("events", "item"), ("steps", "item")):
            owned = [got.ids[place] for place in getattr(got, column)[key]]
            assert {partition_of(name.encode(), PARTITIONS) for name in owned} <= {target}
            seen[column] += owned
        for link in got.links:
            places = [link["item"], *link["history"][link["history"] >= 0]]
            link_names = [got.ids[place] for place in places]
            assert target in {partition_of(name.encode(), PARTITIONS) for name in link_names}
            linked[link_names[0], link_names[-1]] += 1
            assert link["segments"].tolist() == [int(link["at_ms"]), 10**12 + int(link["at_ms"])]
        assert (got.steps["q"] == 2).all()
        assert [got.ids[p] for p in got.events["item"]] == [f"video{at - 10**12}" for at in got.events["at_ms"]]
    by_owner = sorted(names, key=lambda name: partition_of(name.encode(), PARTITIONS))
    assert seen == {"events": by_owner, "steps": by_owner}
    expected: Counter[tuple[str, str]] = Counter()
    for part in np.array_split(np.array(names), 3):
        for held, name in zip([part[0], *part[:-1]], part, strict=True):
            # Once to each owner of what it names.
            expected[str(name), str(held)] = len({partition_of(str(n).encode(), PARTITIONS) for n in (name, held)})
    assert linked == expected


def test_no_block_is_larger_than_a_broker_takes_however_long_the_ids() -> None:
    """An event is 14 bytes and its video's id up to 128: ids decide the size."""
    engine = engine_of()
    replica = engine.replica
    numbers = np.array([replica.row_of(f"{n:05}{'x' * 123}") for n in range(20_000)], np.int32)
    pending = Pending()
    pending.add_events(numbers, np.full(len(numbers), 0), np.zeros(len(numbers)), numbers.astype(np.int64))
    blocks = list(pending.blocks(replica, b"origin", 0))
    assert max(len(block.pack()) for _, block in blocks) <= BLOCK_BYTES
    found = [block.ids[place] for _, block in blocks for place in block.events["item"]]
    assert sorted(found) == replica.ids_of(numbers.tolist())
