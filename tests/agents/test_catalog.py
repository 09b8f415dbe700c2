"""Deletions and catalogue records, through restarts and in every order."""

import numpy as np
import pytest

from state import rows
from state.lists import recommend, similar, trending
from tests.agents.world import EVIDENCE, World, liked, world
from topics.catalog import Video
from topics.specs import INTERACTIONS, VIDEOS

GONE = "video7"


def audience(state: World) -> None:
    """Twelve users, each with most of twenty videos in their history; the deleted one among them."""
    for n in range(20):
        state.put(f"video{n}", Video(title=f"Film {n}", categories=("film",)))
    number = 0
    for user in range(12):
        for n in range(20):
            if (n + user) % 5:
                number += 1
                state.send(liked(f"user{user}", f"video{n}", number))
    state.settle()


def traces(state: World) -> list[str]:
    """Where the deleted video can still be found."""
    engine = state.engine
    row = engine.replica.find(GONE)
    found = []
    if row is not None:
        found += [
            model.name
            for model in (engine.covisitation, engine.markov)
            if (model.columns["neighbour"] == row).any() or (model.columns["neighbour"][row] >= 0).any()
        ]
        if engine.replica.active[row] or row in engine.new_rows() or engine.replica.video(row) is not None:
            found.append("catalogue")
        if engine.replica.counts[row].any() or engine.popularity.columns["plays"][row]:
            found.append("counts")
        if engine.content.columns["content"][row].any():
            found.append("content")
    for user in range(12):
        home = state.partition_of(f"user{user}")
        slot = engine.users.slot_of(f"user{user}", home)
        if row is not None and row in engine.users.history[slot]:
            found.append(f"history of user{user}")
        if any(engine.replica.ids[place.row] == GONE for place in recommend(engine, f"user{user}", home, 20)[0]):
            found.append(f"list of user{user}")
    if any(engine.replica.ids[place.row] == GONE for place in trending(engine, 20)):
        found.append("trending")
    if any(engine.replica.ids[place.row] == GONE for place in similar(engine, state.row("video1"), 20)):
        found.append("similar")
    engine.index.refresh(engine.mf.columns["q"], engine.mf.columns["b"])
    if row is not None and row in engine.index.search(
        np.ones(32, np.float32), 50, **{name: engine.mf.columns[name] for name in "qb"}
    ):
        found.append("index")
    for partition in state.partitions:
        store = state.stores[partition][1]
        if any(store.get(prefix + GONE.encode()) for prefix in (rows.ITEM, rows.NEIGHBOURS, rows.VIDEO)):
            found.append("store")
    return found


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_deleted_video_is_gone_everywhere(partitions: int) -> None:
    state = world(partitions)
    audience(state)
    assert {"covisitation", "markov", "catalogue", "counts", "content", "trending", "similar", "index", "store"} <= set(
        traces(state)
    )
    state.put(GONE, None)
    state.settle()
    assert traces(state) == []
    state.restart()
    assert traces(state) == []


def test_a_deletion_that_only_its_own_shard_has_committed_holds_after_a_kill() -> None:
    """Lists and histories of other shards are in their stores as they were; what is read from there must not come back."""
    state = world(3)
    audience(state)
    home = state.partition_of(GONE)
    state.put(GONE, None)
    state.step(VIDEOS, home)
    state.checkpoint(home)
    state.restart()
    assert traces(state) == []


def test_other_shards_write_their_purged_rows_without_input_of_their_own() -> None:
    state = world(3)
    audience(state)
    home = state.partition_of(GONE)
    state.put(GONE, None)
    state.step(VIDEOS, home)
    assert all(state.engine.shards[partition].dirty for partition in state.partitions)
    state.checkpoint_all()
    assert not state.engine.users.pins.any()


def test_evidence_for_a_deleted_video_changes_nothing() -> None:
    state = world(2)
    audience(state)
    late = state.partition_of("late")
    state.send(liked("late", "video1", 9001), liked("late", GONE, 9002), liked("late", "video2", 9003))
    state.step(INTERACTIONS, late)
    state.checkpoint(late)
    state.put(GONE, None)
    home = state.partition_of(GONE)
    state.step(VIDEOS, home)
    state.step(EVIDENCE, home)
    state.settle()
    assert traces(state) == []
    # And an event that comes after the deletion counts, and teaches nothing.
    learned = state.totals()["learned"]
    state.send(liked("late", GONE, 9004))
    state.settle()
    assert traces(state) == []
    assert (state.totals()["learned"], state.totals()["ignored"]) == (learned, 1)


@pytest.mark.parametrize("pause", [True, False])
def test_a_video_that_is_deleted_and_published_again_starts_anew(pause: bool) -> None:
    state = world(2)
    audience(state)
    state.put(GONE, None)
    if pause:
        state.settle()
    state.put(GONE, Video(title="Again"))
    for partition in state.partitions:
        state.step(VIDEOS, partition)
    state.send(liked("newcomer", GONE, 9001))
    for partition in state.partitions:
        state.step(INTERACTIONS, partition)
    # The deletion, the return and the first like, in one checkpoint of the video's shard where the user lives there too.
    state.settle()
    for _ in range(2):
        row = state.row(GONE)
        assert state.engine.popularity.columns["plays"][row] == 1
        assert state.engine.replica.active[row]
        video = state.engine.replica.video(row)
        assert video is not None
        assert video.title == "Again"
        state.restart()


def test_deletion_and_return_in_one_checkpoint_keep_what_was_learned_since() -> None:
    state = world(1)
    audience(state)
    state.put(GONE, None)
    state.put(GONE, Video(title="Again"))
    state.step(VIDEOS, 0)
    state.send(liked("newcomer", GONE, 9001))
    state.step(INTERACTIONS, 0)
    block = state.engine.shards[0].pending.blocks(state.engine.replica, state.engine.origin, 0)
    for _, evidence in list(block):
        state.append(EVIDENCE, 0, None, evidence.pack())
    state.step(EVIDENCE, 0)
    state.engine.shards[0].pending.__init__()  # type: ignore[misc] # it was delivered by hand
    state.checkpoint(0)
    state.restart()
    assert state.engine.popularity.columns["plays"][state.row(GONE)] == 1


def test_a_tombstone_for_an_unknown_video_keeps_older_events_from_bringing_it_back() -> None:
    state = world(1)
    state.put("unknown here", None)
    state.settle()
    assert state.totals()["unknown_tombstones"] == 1
    # As when all topics are read anew: the catalogue first, then the events of a video that is long gone.
    state.send(liked("u", "unknown here", 1), liked("u", "another", 2))
    state.settle()
    for _ in range(2):
        assert state.engine.replica.ids_of(state.engine.replica.active_rows().tolist()) == ["another"]
        assert state.totals()["learned"] + state.totals()["ignored"] == 2
        state.restart()


def test_bad_catalogue_records_are_dead_letters_and_the_next_one_is_taken() -> None:
    state = world(1)
    for key, value in ((None, b"{}"), (b"v", b""), (b"v", b"{"), (b"\xff", b"{}"), (b"v" * 200, None)):
        state.append(VIDEOS, 0, key, value)
    state.put("v", Video(title="Good"))
    state.settle()
    assert len(state.dead) == state.totals()["dead_videos"] == 5
    assert state.engine.replica.active[state.row("v")]


def test_a_full_catalogue_refuses_and_goes_on() -> None:
    state = world(1, max_videos=3)
    for n in range(5):
        state.put(f"video{n}", Video(title="x"))
    state.send(liked("ann", "video0", 1), liked("ann", "unheard of", 2), liked("ann", "video1", 3))
    state.settle()
    assert [letter.reason for letter in state.dead] == ["state_full"] * 3
    assert state.totals()["learned"] == 2


def test_hidden_videos_are_learned_and_never_listed() -> None:
    """Even where nothing else is in the catalogue, from which negatives could be drawn."""
    state = world(1)
    state.put("secret", Video(title="x", hidden=True))
    state.send(liked("ann", "secret", 1), liked("bob", "secret", 2))
    state.settle()
    assert state.totals()["learned"] == 2
    assert trending(state.engine, 10) == []
    assert recommend(state.engine, "ann", 0, 10)[0] == []
    state.put("secret", Video(title="x"))
    state.settle()
    assert [state.engine.replica.ids[place.row] for place in trending(state.engine, 10)] == ["secret"]
