"""Learning by the batch is learning event by event: the same counts and lists, and factors that rank as well."""

import numpy as np
import pytest

from agents.app import CHUNK
from ingestion.simulate import Audience
from state.engine import EngineOptions
from tests.agents.world import NOW_MS, World, liked, random_events, world
from topics.catalog import Video
from topics.interactions import Interaction
from topics.partitions import partition_of
from topics.signals import Signal, SignalTable, is_positive
from topics.specs import INTERACTIONS


def learned(events: list[Interaction], chunk: int, partitions: int, **bounds: int) -> World:
    """A world that has learned the events, `chunk` records of a partition at a time, and applied their evidence."""
    state = world(partitions, **bounds)
    state.send(*events)
    for partition in state.partitions:
        while state.step(INTERACTIONS, partition, chunk):
            pass
    state.settle()
    return state


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("chunk", [7, CHUNK])
def test_counts_and_untruncated_lists_are_those_of_event_by_event_learning(chunk: int, partitions: int) -> None:
    events = random_events(partitions, 3_000)
    single, batched = learned(events, 1, partitions), learned(events, chunk, partitions)
    assert single.totals() == batched.totals()
    assert single.totals()["learned"] > 500
    ids = [str(video_id) for video_id in single.engine.replica.ids]
    for video_id in ids:
        one, other = single.row(video_id), batched.row(video_id)
        assert (single.engine.replica.counts[one] == batched.engine.replica.counts[other]).all()
        for name in ("covisitation", "markov"):
            assert links(single, name, video_id) == pytest.approx(links(batched, name, video_id), rel=1e-6)
    for user in {event.user_id for event in events}:
        assert kept(single, user) == kept(batched, user)


def kept(state: World, user: str) -> tuple[list[int], list[str], list[int]]:
    """A user's counters, history and seen set."""
    users, slot = state.engine.users, state.engine.users.peek(user)
    assert slot is not None
    return users.counts[slot].tolist(), named(state, users.history[slot]), users.seen(slot).tolist()


def named(state: World, rows: "np.typing.NDArray[np.int32]") -> list[str]:
    return [str(state.engine.replica.ids[row]) for row in rows.tolist() if row >= 0]


def links(state: World, name: str, video_id: str) -> dict[str, float]:
    """A video's neighbours, with weights as of tick 0."""
    model = state.engine.replica.models[name]
    row, columns = state.row(video_id), model.columns
    rule = state.engine.covisitation.rule if name == "covisitation" else state.engine.markov.rule
    fade = 2.0 ** (-columns["weight_at"][row] / rule.half_life)
    return dict(zip(named(state, columns["neighbour"][row]), (columns["weight"][row] * fade).tolist(), strict=False))


def test_factors_that_share_negatives_rank_as_well() -> None:
    """Recall of the next positives, in the mean over users; with the same seed the batches draw other negatives."""
    partitions = 2
    events = list(Audience(3, 150, 300, start_ms=NOW_MS - 60 * 86_400_000).events(14_000))
    cut = 11_000
    following: dict[str, set[str]] = {}
    for event in events[cut:]:
        if is_positive(event.event, event.watch_seconds, event.duration_seconds):
            following.setdefault(event.user_id, set()).add(event.video_id)
    recalls = []
    for chunk in (1, CHUNK):
        state = learned(events[:cut], chunk, partitions)
        recalls.append(float(np.mean([recall(state, user, wanted) for user, wanted in following.items()])))
    assert len(following) > 80
    assert recalls[0] > 0.12, "a list of 30 of 300 drawn blindly has .1 of them"
    assert recalls[1] == pytest.approx(recalls[0], rel=0.15)


def recall(state: World, user: str, wanted: set[str], length: int = 30) -> float:
    """Share of `wanted` among the best unseen videos by the factorization alone."""
    engine = state.engine
    slot = engine.users.find(user, partition_of(user.encode(), engine.options.partitions))
    if slot is None:
        return 0.0
    context = engine.context(slot)
    scores = np.empty(len(engine.replica), np.float32)
    engine.mf.scores(engine.mf.user_vector(context.p, context.history), scores)
    scores[engine.replica.find_codes(engine.users.seen(slot))] = -np.inf
    best = {str(engine.replica.ids[row]) for row in np.argsort(-scores)[:length].tolist()}
    fresh = {video for video in wanted if (row := engine.replica.find(video)) is not None and np.isfinite(scores[row])}
    return len(best & fresh) / max(1, len(fresh))


def test_a_heavier_positive_takes_a_larger_step() -> None:
    moved = []
    for weight in (0.5, 1.0, 3.0):
        table = SignalTable({"like": Signal(1, weight)})
        state = World(EngineOptions(partitions=1, signals=table))
        for n in range(10):
            state.put(f"v{n}", Video(title=f"film {n}"))
        state.settle()
        row = state.row("v1")
        before = state.engine.mf.columns["q"][row].copy()
        state.send(liked("ann", "v2", 1), liked("ann", "v1", 2))
        state.settle()
        moved.append(float(np.abs(state.engine.mf.columns["q"][row] - before).sum()))
    assert moved[0] < moved[1] < moved[2]
