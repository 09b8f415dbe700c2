"""Trials of configurations on logs in memory: which targets are chosen, what is ranked for them, and that nothing learned changes."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from agents.replayer import Replayer
from agents.trial import Choice, ChoosingTrial, Trial
from cli.canonical import digests_of
from cli.comparison import BETTER, DECIDES, SAME, WORSE, Comparison, compared
from ingestion.simulate import Audience
from online_models.ranker import GROUPS, features_of
from state.arms import ABSENT
from state.engine import EngineOptions
from state.lists import Wish
from state.objective import Objective
from state.tuning import Tuning
from tests.agents.world import NOW_MS, TOLERANCE_MS, World, WorldLog, world
from topics.interactions import EVENTS, Interaction, decode_value
from topics.signals import DEFAULT_SIGNALS, Signal, SignalTable
from topics.specs import INTERACTIONS

EVENTS_N = 2_500
K = Wish(10)


@pytest.fixture(scope="module")
def heard() -> World:
    """A world in which nothing is learned yet, of an audience that has tastes."""
    state = world(max_users=300, max_videos=300)
    audience = Audience(5, 150, 150, start_ms=NOW_MS - 40 * 86_400_000)
    for video_id, video in audience.videos():
        state.put(video_id, video)
    for number, event in enumerate(audience.events(EVENTS_N)):
        state.arrival_ms = NOW_MS + number
        state.send(event)
    return state


def run(state: World, trial: Trial, options: EngineOptions | None = None) -> Replayer:
    replayer = Replayer(options or state.options, TOLERANCE_MS, judge=trial, shard_window=50)
    replayer.run(WorldLog(state))
    return replayer


def chosen(state: World, choice: Choice) -> ChoosingTrial:
    choice.of = EVENTS_N
    trial = ChoosingTrial(K, choice)
    run(state, trial)
    return trial


@pytest.fixture(scope="module")
def live(heard: World) -> ChoosingTrial:
    return chosen(heard, Choice(100_000))


def against(live: ChoosingTrial, other: Trial) -> Comparison:
    return compared(live.targets, {"live": live.places, "candidate": other.places}, {"live": 1.0, "candidate": 1.0})


def test_the_same_configuration_lists_the_same_at_every_target(heard: World, live: ChoosingTrial) -> None:
    again = Trial(K, live.targets)
    run(heard, again)
    assert again.places == live.places
    assert again.covered == live.covered
    assert again.ranked == len(live.targets) > 250
    found = against(live, again)
    assert found.difference(DECIDES).value == 0.0
    assert found.verdict == SAME
    # Or equal lists would say nothing: they do find what comes, and not all of it.
    assert 0.1 < (np.array(live.places) != ABSENT).mean() < 0.9


def test_what_is_learned_does_not_depend_on_who_ranks(heard: World, live: ChoosingTrial) -> None:
    plain = Replayer(heard.options, TOLERANCE_MS)
    plain.run(WorldLog(heard))
    judged = Replayer(heard.options, TOLERANCE_MS, judge=Trial(K, live.targets))
    judged.run(WorldLog(heard))
    assert digests_of(judged) == digests_of(plain)


@pytest.mark.parametrize("what", ["objective", "without"])
def test_a_worse_configuration_is_found_worse_and_the_other_way_round(
    heard: World, live: ChoosingTrial, what: str
) -> None:
    tuning = (
        Tuning(objective=Objective.parse("choice=-1,like=0.001"))
        if what == "objective"
        else Tuning(without=features_of(list(GROUPS)))
    )
    worse = Trial(Wish(10, tuning=tuning), live.targets)
    run(heard, worse)
    found = against(live, worse)
    assert found.verdict == WORSE
    turned = compared(live.targets, {"live": worse.places, "candidate": live.places}, found.coverage)
    assert turned.verdict == BETTER
    assert turned.difference(DECIDES).value == -found.difference(DECIDES).value


def test_targets_are_first_positives_by_the_live_table_whatever_the_candidate_calls_positive(
    heard: World, live: ChoosingTrial
) -> None:
    first: dict[tuple[str, str], tuple[int, int]] = {}
    for partition in heard.partitions:
        for record in heard.log(INTERACTIONS, partition):
            event = decoded(record.value)
            if DEFAULT_SIGNALS.signal(event.event, event.watch_seconds, event.duration_seconds).target == 1:
                first.setdefault((event.user_id, event.video_id), (partition, record.offset))
    places = [(target.partition, target.offset) for target in live.targets]
    assert len(set(places)) == len(places)
    assert set(places) <= set(first.values())
    # All of them after the warm-up, but for those of a micro-batch that the clock has damped.
    assert 0.6 * len(first) < len(places) < 0.8 * len(first)
    nothing = {name: Signal(0, 0.0) for name in (*EVENTS, "long_watch")} | {"dislike": Signal(1, 1.0)}
    other = Trial(K, live.targets)
    run(heard, other, replace(heard.options, signals=SignalTable(nothing)))
    assert other.ranked == len(live.targets)
    assert against(live, other).verdict == WORSE


def test_so_many_targets_as_asked_for_are_spread_over_the_log(heard: World, live: ChoosingTrial) -> None:
    few = chosen(heard, Choice(100)).targets
    assert 75 <= len(few) <= 100
    assert set(few) <= set(live.targets)
    every = [target.at_ms for target in live.targets]
    halves = Counter(bool(target.at_ms > np.median(every)) for target in few)
    assert 25 <= halves[True] <= 75


def test_from_a_moment_on_lists_are_made_and_before_it_is_learned(heard: World) -> None:
    since_ms = NOW_MS + EVENTS_N // 2
    late = chosen(heard, Choice(100_000, 0.0, since_ms)).targets
    arrived = {
        (partition, record.offset): record.timestamp
        for partition in heard.partitions
        for record in heard.log(INTERACTIONS, partition)
    }
    assert min(arrived[target.partition, target.offset] for target in late) >= since_ms
    assert len(late) > 150


def test_an_event_that_the_candidate_has_no_room_for_is_a_miss(heard: World, live: ChoosingTrial) -> None:
    small = Trial(K, live.targets)
    run(heard, small, replace(heard.options, max_videos=40))
    assert small.ranked < len(live.targets)
    assert len(small.places) == len(live.targets)


def test_who_is_cold_and_what_is_young(heard: World, live: ChoosingTrial) -> None:
    seen: Counter[str] = Counter()
    by_place: dict[tuple[int, int], tuple[str, int]] = {}
    for partition in heard.partitions:
        for record in heard.log(INTERACTIONS, partition):
            event = decoded(record.value)
            by_place[partition, record.offset] = event.user_id, seen[event.user_id]
            seen[event.user_id] += 1
    cold = [target for target in live.targets if target.cold]
    assert cold
    for target in live.targets:
        # Of the target's own row of the log nothing is known; a row has a few events.
        assert target.cold or by_place[target.partition, target.offset][1] >= 3
    assert len({target.user for target in live.targets}) == len(
        {by_place[t.partition, t.offset][0] for t in live.targets}
    )
    assert not any(target.new for target in live.targets)


def decoded(value: bytes | None) -> Interaction:
    return decode_value(value or b"")
