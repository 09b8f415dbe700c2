"""Evaluation in the worker: what the evaluator would say, of a fair sample, with nothing learned that would not be learned anyway."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest

from agents import items, users
from agents import scoring as module
from agents.budget import BURST_S
from agents.scoring import ARMS, LOOK_EVERY, Scorer, situation
from agents.scoring_metrics import publish
from agents.windows import WINDOWS, Sample
from cli.prequential import Evaluator, first_positives, row_starts
from infra import metrics
from ingestion.event_table import EventTable
from ingestion.simulate import Audience
from ingestion.source import read_event_table
from state.arms import ABSENT
from state.engine import Engine, EngineOptions
from state.rows import Cut
from state.shard import Shard
from state.store import MemoryStore
from tests.agents.test_ranking import busy, shop
from tests.agents.world import NOW_MS, Record, World, liked, random_events, world
from topics.interactions import Interaction, encode
from topics.specs import INTERACTIONS


class Recording(Scorer):
    """Keeps each sample with whose it is and of what."""

    def __init__(self, share: float = 1.0) -> None:
        super().__init__(share)
        self.samples: dict[tuple[str, str], Sample] = {}

    def _ranked(self, engine: Engine, slot: int, row: int, ahead: int) -> Sample:
        sample = super()._ranked(engine, slot, row, ahead)
        self.samples[engine.users.key_of(slot).decode(), str(engine.replica.ids[row])] = sample
        return sample


def table_of(folder: Path, events: Iterable[Interaction]) -> EventTable:
    names = ("user_id", "video_id", "event", "at_ms", "watch_seconds", "duration_seconds")
    lines = [orjson.dumps({name: getattr(event, name) for name in names}) for event in events]
    (folder / "events.jsonl").write_bytes(b"\n".join(lines))
    return read_event_table(folder / "events.jsonl")


def test_without_a_lag_it_says_of_each_positive_what_the_evaluator_says(tmp_path: Path) -> None:
    """The same batches, so that not even a float differs; rows of the log are ranked before their impression is known."""
    audience = Audience(5, 60, 150)
    table = table_of(tmp_path, audience.events(4_000))
    positive = table.positive()
    videos = audience.videos()
    arms = [arm for arm in ARMS if arm != "popularity_decayed"]
    # Which lists explore is drawn by their number, and the two make others beside these.
    evaluator = Evaluator(table, videos, positive, warmup=0.3, arms=arms, exploration=0.0)
    result = evaluator.run()

    per_day = result.positives_per_day
    options = EngineOptions(1, max_users=60, max_videos=150, positives_per_day=per_day, exploration=0.0)
    engine = Engine(options, b"scored")
    shard = Shard(0, MemoryStore(), MemoryStore(), Cut({}))
    engine.add_shard(shard)
    scorer = Recording()
    due = sorted(((video.published_ms or 0, video_id, video) for video_id, video in videos), reverse=True)
    records = [Record(e.user_id.encode(), encode(e), n, e.at_ms) for n, e in enumerate(table.interactions())]

    def step(start: int, stop: int, at_ms: int) -> None:
        fresh = []
        while due and due[-1][0] <= at_ms:
            fresh.append(due.pop()[1:])
        engine.publish(fresh)
        if start == stop:
            return
        users.step(engine, shard, records[start:stop], 2**60, scorer)
        for _, block in shard.pending.blocks(engine.replica, engine.origin, 0):
            items.apply(engine, shard, block)
        shard.pending.clear()

    first, learned = first_positives(table, positive), 0
    for event, start in zip(first.tolist(), row_starts(table, first).tolist(), strict=True):
        step(learned, start, int(table.at_ms[max(start - 1, 0)]))
        step(start, event + 1, int(table.at_ms[event]))
        learned = event + 1
    assert engine.awaited == 0
    ranked = first[-result.n :]
    keys = zip(table.user_ids.take(ranked).to_pylist(), table.video_ids.take(ranked).to_pylist(), strict=True)
    found = [scorer.samples[key] for key in keys]
    assert len(scorer.samples) == len(first)
    for arm in arms:
        assert [sample.places[arm] for sample in found] == result.positions.arms[arm], arm
        assert 20 < sum(sample.places[arm] != ABSENT for sample in found) < result.n
    assert {(sample.own_lag, sample.shared_lag) for sample in found} == {(0, 0)}


def contents(state: World) -> str:
    """A digest of all that is stored and sent."""
    digest = hashlib.sha256()
    for partition in state.partitions:
        for store in state.stores[partition]:
            for key, value in sorted(store.scan(b"")):
                digest.update(key + b"\0" + value)
    for (topic, partition), log in sorted(state.logs.items()):
        for record in log:
            digest.update(f"{topic} {partition}".encode() + (record.value or b""))
    engine = state.engine
    for model in engine.models:
        for name, column in sorted(model.columns.items()):
            digest.update(name.encode() + column.tobytes())
    digest.update(engine.ranker.part(0).tobytes() + engine.users.seen_pool.tobytes() + engine.users.passed.tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_what_is_learned_is_the_same_with_it_and_without(share: float) -> None:
    events = [*Audience(3, 40, 90, start_ms=NOW_MS - 10**9).events(2_500), *random_events(2, 500)]
    digests = []
    for scorer in (None, Scorer(share)):
        state = world(3)
        state.scorer = scorer
        state.send(*events)
        for partition in state.partitions:
            while state.step(INTERACTIONS, partition, 40):
                state.checkpoint(partition)
        state.settle()
        digests.append(contents(state))
    assert scorer is not None
    assert scorer.windows.scored > 5
    assert scorer.failed == 0
    assert digests[0] == digests[1]


def scored(state: World, *events: Interaction) -> Recording:
    """What is found of these events, learned in one batch."""
    scorer = Recording()
    state.scorer = scorer
    state.send(*events)
    for partition in state.partitions:
        state.step(INTERACTIONS, partition)
    return scorer


def test_first_positives_are_ranked_and_nothing_else_is() -> None:
    state = busy()
    others = [
        liked("new", "video1", 1_002, event="share"),
        liked("new", "video2", 1_003, event="view"),
        liked("new", "video4", 1_004, event="dislike"),
        liked("new", "video5", 1_005, event="impression"),
        Interaction("e1006", "new", "video3", "watch", NOW_MS, 1.0, 60.0),
    ]
    found = scored(state, liked("new", "video1", 1_001), liked("new", "video1", 1_001), *others)
    assert list(found.samples) == [("new", "video1")]
    assert found.windows.scored == 1
    state.settle()
    again = scored(state, liked("new", "video1", 1_007), liked("new", "video1", 1_001))
    assert again.windows.scored == 0
    assert again.drawn == 2


def test_a_video_that_came_with_the_batch_is_a_miss_of_every_arm() -> None:
    state = shop(videos=3)
    sample = scored(state, liked("ann", "unheard", 1)).samples["ann", "unheard"]
    assert set(sample.places.values()) == {ABSENT}
    assert state.row("unheard") not in sample.listed.tolist()


def test_what_was_seen_in_an_earlier_visit_cannot_be_listed_and_what_is_seen_in_this_one_can() -> None:
    state = busy()
    row = state.row("video1")
    # They came, watched some of it, and like it in a batch of its own: a list before that could have had it.
    state.send(
        liked("ann", "video3", 2_001, event="view"),
        liked("ann", "video1", 2_002, event="impression"),
        Interaction("e2003", "ann", "video1", "watch", NOW_MS, 1.0, 60.0),
    )
    state.settle()
    slot = state.engine.users.find("ann", 0)
    assert slot is not None
    assert not state.engine.allowed(slot)[row]
    context, allowed = situation(state.engine, slot, row)
    assert allowed[row]
    assert context.passed.tolist() == [state.row("video3")]
    # They went on to another, and came back: the list of that time left it out.
    state.send(
        Interaction("e2004", "ann", "video4", "watch", NOW_MS, 1.0, 60.0), liked("ann", "video1", 2_005, event="view")
    )
    state.settle()
    assert not situation(state.engine, slot, row)[1][row]
    sample = scored(state, liked("ann", "video1", 2_006)).samples["ann", "video1"]
    assert set(sample.places.values()) == {ABSENT}


def test_the_lag_is_what_stands_before_it_in_the_batch_and_what_has_not_come_back() -> None:
    state = busy(partitions=2)
    fans = [f"user{n}" for n in range(40) if state.partition_of(f"user{n}") == state.partition_of("ann")][:7]
    batch = [liked(fan, f"video{n}", 3_000 + n, event="view") for n, fan in enumerate(fans)]
    found = scored(state, *batch, liked("ann", "video9", 3_050, event="impression"), liked("ann", "video9", 3_051))
    lags = lags_of(found, "ann")
    # Of the other shard's events as many are from that time, but these it would know.
    assert lags == [2 * len(fans), len(fans)]
    # Nothing was checkpointed: what all users share knows none of them.
    assert lags_of(scored(state, liked("bob", "video9", 3_052)), "bob") == [0, len(fans) + 2]
    state.settle()
    assert lags_of(scored(state, liked("cat", "video9", 3_053)), "cat") == [0, 0]


def lags_of(found: Recording, user: str) -> list[float]:
    sample = found.samples[user, "video9"]
    return [sample.own_lag, sample.shared_lag]


class Clock:
    """Goes on by `step_s` when it is read, and where the test says."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.now_s, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


def test_a_sample_is_spread_over_users_videos_and_the_places_of_a_batch() -> None:
    process, thread = Clock(), Clock(0.008)
    state = busy()
    scorer = Scorer(0.1, process=process, thread=thread)
    state.scorer = scorer
    places: list[int] = []
    draw = scorer._draw

    def noting(partition: int, offsets: "np.typing.NDArray[np.int64]") -> "np.typing.NDArray[np.bool_]":
        chosen = draw(partition, offsets)
        places.extend(np.flatnonzero(chosen).tolist())
        return chosen

    scorer._draw = noting  # type: ignore[method-assign] # to see what is drawn
    number = 5_000
    for batch in range(100):
        process.now_s += 0.1
        state.send(*(liked(f"fan{batch}-{n}", f"video{n % 30}", number + n) for n in range(60)))
        number += 60
        state.settle()
    share = len(places) / (100 * 60)
    assert 0.03 < share < 0.5
    thirds = np.histogram(places, bins=[0, 20, 40, 60])[0]
    # Within four standard errors of a third each.
    assert np.abs(thirds - len(places) / 3).max() < 4 * np.sqrt(len(places) * 2 / 9)
    assert scorer.figures(30)["sampled_ratio"] == pytest.approx(share)


def test_no_more_than_the_share_of_the_cpu_time_is_spent() -> None:
    state, share = shop(2, videos=300), 0.1
    scorer = Scorer(share)
    state.scorer = scorer
    state.send(*Audience(4, 100, 300, start_ms=NOW_MS - 10**9).events(12_000))
    for partition in state.partitions:
        while state.step(INTERACTIONS, partition, 300):
            state.checkpoint(partition)
    budget = scorer.budget
    assert scorer.windows.scored > 20
    # What was saved up, and what chance may have added in the last batch.
    assert budget.spent_s < share * budget.process_s + 3 * BURST_S
    assert scorer.figures(300)["sampled_ratio"] < 0.9


def test_an_arm_that_breaks_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    state = busy()
    state.engine.mf.columns["q"][:] = np.nan
    found = scored(state, liked("ann", "video1", 4_001))
    assert found.samples["ann", "video1"].places["mf"] == ABSENT
    assert found.failed == 0

    def broken(*_: object) -> None:
        raise ZeroDivisionError("an arm")

    monkeypatch.setattr(module, "rank", broken)
    before = state.totals()["learned"]
    found = scored(state, liked("bob", "video1", 4_002), liked("bob", "video2", 4_003))
    assert (found.failed, found.windows.scored) == (2, 0)
    assert state.totals()["learned"] == before + 2


def made_up(served: float, popular: float, n: int, rng: np.random.Generator) -> Iterator[Sample]:
    for _ in range(n):
        places = dict.fromkeys((*ARMS, *module._DECAYED), ABSENT)
        places["served"] = 3 if rng.random() < served else ABSENT
        places["item_knn"] = 5 if rng.random() < popular else ABSENT
        yield Sample(places, np.arange(10, dtype=np.int32), 4.0, 0.1, places["served"] >= 0, 3.0, 0.0, 0.0)


class Said:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str, **_: object) -> None:
        self.warnings.append(text)


def test_the_alarm_is_raised_once_and_cleared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, rng, said = Scorer(1.0), np.random.default_rng(1), Said()
    monkeypatch.setattr(module, "log", said)

    def feed(served: float, popular: float, n: int) -> list[bool]:
        states = []
        for sample in made_up(served, popular, n, rng):
            scorer._add(sample)
            states.append(scorer.below_baselines)
        return states

    assert not any(feed(0.15, 0.1, 3_000))
    fallen = feed(0.02, 0.1, 4_000)
    # The short window sees it within a window's length, and it stays.
    assert fallen.index(True) <= WINDOWS[0]
    assert all(fallen[WINDOWS[0] :])
    publish(scorer.figures(30))
    assert metrics.REGISTRY.get_sample_value("headrace_served_below_baselines") == 1.0
    risen = feed(0.25, 0.1, 12_000)
    assert not any(risen[-2_000:])
    publish(scorer.figures(30))
    assert metrics.REGISTRY.get_sample_value("headrace_served_below_baselines") == 0.0
    assert ["not below" in text for text in said.warnings if "baselines" in text] == [False, True]
    # From .15 to .02, and from there to .25; one for the better is no warning.
    assert 1 <= sum("find less" in text for text in said.warnings) == scorer.drift.changes["down"]
    for direction in ("down", "up"):
        published = metrics.REGISTRY.get_sample_value("headrace_online_drifts", {"direction": direction})
        assert published == scorer.drift.changes[direction] >= 1


def test_few_positives_raise_no_alarm() -> None:
    scorer, rng = Scorer(1.0), np.random.default_rng(1)
    for sample in made_up(0.0, 0.5, 500 - LOOK_EVERY, rng):
        scorer._add(sample)
    assert not scorer.below_baselines


def test_figures_are_published_by_arm_and_window() -> None:
    state = busy()
    found = scored(state, *(liked(f"user{n}", f"video{n + 5}", 6_000 + n) for n in range(20)))
    figures = found.figures(30)
    publish(figures)
    value = metrics.REGISTRY.get_sample_value
    for window in WINDOWS:
        for arm in ARMS:
            labels = {"arm": arm, "window": str(window)}
            assert value("headrace_online_recall", labels) == figures["windows"][window]["recall"][arm]
            assert value("headrace_online_ndcg", labels) == figures["windows"][window]["ndcg"][arm]
        assert 0.0 < float(value("headrace_online_log_loss_nats", {"window": str(window)}) or 0.0) < 10.0
        assert 0.0 < float(value("headrace_online_coverage_ratio", {"window": str(window)}) or 0.0) <= 1.0
    assert value("headrace_online_scored") == found.windows.scored
    assert 0 < found.windows.scored <= 20
    assert value("headrace_online_sampled_ratio") == 1.0


def test_a_share_of_nothing_ranks_nothing_and_all_of_it_keeps_batches_short() -> None:
    state = busy()
    state.scorer = Scorer(0.0)
    state.send(liked("ann", "video1", 7_001))
    state.step(INTERACTIONS, 0)
    assert state.scorer.wanted == 0
    assert Scorer(0.1).batch_of(1_000) == 1_000
    assert Scorer(1.0).batch_of(1_000) == 100


@pytest.mark.parametrize(("share", "late_s", "left"), [(0.1, 0.0, 0.1), (0.1, 5.0, 0.025), (1.0, 5.0, 1.0)])
def test_late_events_come_before_measuring_but_for_whoever_measures_all(
    share: float, late_s: float, left: float
) -> None:
    scorer = Scorer(share)
    scorer.look_at(late_s)
    assert scorer.budget.share == pytest.approx(left)
    scorer.look_at(0.0)
    assert scorer.budget.share == share
