"""An experiment in the worker's steps: what follows the lists of its arms is counted as a plain recount of the logs counts it."""

import random
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest

from agents import feedback
from agents.tallying import LATE_MS, RACE_MS
from api.requests import ListRequest
from online_models.heads import INPUTS
from state import recent_events, rows
from state.engine import EngineOptions
from state.experiment import Arm, Experiment
from state.exposures import LIST_WINDOW_MS, LISTS_A_USER
from state.lists import personal_list
from state.prediction import INPUT_NAMES
from state.tally import MEASURES, Tally
from tests.agents.world import NOW_MS, World
from topics.catalog import Video
from topics.interactions import Interaction, decode_value
from topics.partitions import partition_of
from topics.recommendations import Recommended, decode_list, encode_list
from topics.specs import INTERACTIONS, RECOMMENDATIONS

BEGIN = NOW_MS - 30 * 86_400_000
MIX = Experiment(
    "mix", "salt",
    (
        Arm("control", 1.0, {"explore": 0}),
        Arm("kinds", 1.0, {"explore": 0, "filter": "category == 'kind0'"}),
        Arm("plain", 1.0, {"explore": 0}, without=("popularity_300", "popularity_3000", "popularity_30000", "count", "unplayed")),
    ),
)  # fmt: skip


def shop(experiment: Experiment | None = MIX, partitions: int = 2, videos: int = 40) -> World:
    """A catalogue that some have liked from, and an experiment."""
    state = World(EngineOptions(partitions=partitions, max_users=1_000, max_videos=1_000, experiment=experiment))
    for n in range(videos):
        published_ms = NOW_MS - 90 * 86_400_000 + n
        state.put(f"video{n}", Video(title=f"film {n}", categories=(f"kind{n % 3}",), published_ms=published_ms))
    state.arrival_ms = BEGIN
    state.send(
        *(Interaction(f"w{n}", f"fan{n % 9}", f"video{(n * n) % 23}", "like", BEGIN - 90_000 + n) for n in range(90))
    )
    state.settle()
    return state


def wanted(user: str, experiment: Experiment | None, **fields: object) -> tuple[ListRequest, Arm | None]:
    """A request, and the arm of the user, as the API makes them of one."""
    arm = None if experiment is None else experiment.arm_of(user)
    preset = {} if arm is None else arm.preset
    return msgspec.convert({**preset, "user_id": user, **fields}, ListRequest), arm


def serve(state: World, user: str, at_ms: int, n: int = 8, changed: Mapping[str, object] = {}) -> list[str]:
    """Serve a list and log it, if there is anything in it, as the API does; nobody has read it yet."""
    experiment = state.options.experiment
    asked, arm = wanted(user, experiment, n=n)
    partition = state.partition_of(user)
    found = personal_list(state.engine, user, partition, asked.wish(arm)).served
    videos = state.engine.replica.ids_of([place.row for place in found])
    if not videos:
        return videos
    fields: dict[str, object] = {
        "arm": "" if arm is None else arm.name, "experiment": 0 if experiment is None else experiment.id, **changed
    }  # fmt: skip
    value = encode_list("r", at_ms, "owner", videos, [], INPUT_NAMES, None, **fields)  # type: ignore[arg-type]
    state.append(RECOMMENDATIONS, partition, user.encode(), value)
    return videos


def of_kind(videos: list[str], kind: int) -> int:
    return sum(int(video.removeprefix("video")) % 3 == kind for video in videos)


def users_of(arm: str, n: int = 5) -> list[str]:
    return [user for user in (f"user{i}" for i in range(300)) if MIX.arm_of(user).name == arm][:n]


@dataclass
class Plain:
    """What followed one list, as a recount has it."""

    listed: Recommended
    user: str
    says: bool = False
    shown: set[int] = field(default_factory=set)
    clicked: set[int] = field(default_factory=set)
    liked: set[int] = field(default_factory=set)
    watch_ms: int = 0

    def measures(self) -> Counter[str]:
        shown = len(self.shown | self.clicked) if self.says else len(self.listed.video_ids)
        return Counter(
            lists=1, hits=int(bool(self.clicked)), shown=shown, clicks=len(self.clicked), positives=len(self.liked),
            watch_ms=self.watch_ms,
        )  # fmt: skip


#: Of each kill: where the logs of lists and of events were committed, by partition.
Cuts = Sequence[Mapping[int, tuple[int, int]]]


def recount(state: World, cuts: Cuts = ()) -> dict[tuple[int, int], Plain]:
    """All lists of the logs with what followed them in the same life, by partition and offset; no code is shared with the worker."""
    found: dict[tuple[int, int], Plain] = {}
    for partition in state.partitions:
        lists = [(r.timestamp, 0, r.offset, r) for r in state.log(RECOMMENDATIONS, partition)]
        events = [(r.timestamp, 1, r.offset, r) for r in state.log(INTERACTIONS, partition)]
        latest: dict[tuple[str, int], deque[Plain]] = {}
        known: set[tuple[str, str]] = set()
        sends: set[str] = set()
        for _, is_event, offset, record in sorted(lists + events, key=lambda entry: entry[:3]):
            # A record belongs to the life that has committed it.
            life = sum(offset >= cut[partition][is_event] for cut in cuts)
            if not is_event:
                key, listed = decode_list(record.key, record.value)
                served = Plain(listed, key.decode(), key.decode() in sends)
                latest.setdefault((key.decode(), life), deque(maxlen=LISTS_A_USER)).append(served)
                found[partition, offset] = served
                continue
            event = decode_value(record.value or b"")
            if (event.user_id, event.event_id) in known:
                continue
            known.add((event.user_id, event.event_id))
            if event.event == "impression":
                sends.add(event.user_id)
            for served in reversed(latest.get((event.user_id, life), deque())):
                within = -60_000 <= event.at_ms - served.listed.at_ms <= 1_800_000
                if within and event.video_id in served.listed.video_ids:
                    note(served, event)
                    break
    return found


def note(served: Plain, event: Interaction) -> None:
    place = served.listed.video_ids.index(event.video_id)
    seconds, length = event.watch_seconds, event.duration_seconds
    if event.event == "impression":
        served.says = True
        served.shown.add(place)
    elif event.event == "view":
        served.clicked.add(place)
    elif event.event in ("like", "share", "comment", "follow"):
        served.clicked.add(place)
        served.liked.add(place)
    elif event.event == "watch":
        if seconds is None or seconds >= min(length or 7.0, 7.0):
            served.clicked.add(place)
        # Of all of a video of up to 18 s, or 18 s.
        if seconds is None or seconds >= min(length or 18.0, 18.0):
            served.clicked.add(place)
            served.liked.add(place)
        served.watch_ms += int((seconds or 0.0) * 1000)


def expected(state: World, cuts: Cuts = ()) -> dict[str, Counter[str]]:
    """By arm."""
    found: dict[str, Counter[str]] = {arm.name: Counter(dict.fromkeys(MEASURES, 0)) for arm in MIX.arms}
    for served in recount(state, cuts).values():
        if served.listed.experiment == MIX.id and served.listed.arm in found:
            found[served.listed.arm].update(served.measures())
    return found


def tally_of(state: World) -> Tally:
    assert state.engine.tally is not None
    return state.engine.tally


def counted(state: World) -> dict[str, Counter[str]]:
    sums = tally_of(state).sums().sum(axis=1)
    return {
        arm.name: Counter({name: int(n) for name, n in zip(MEASURES, sums[place].tolist(), strict=True)})
        for place, arm in enumerate(MIX.arms)
    }


class Audience:
    """Users who ask for lists and do something with them, or with anything else."""

    def __init__(self, state: World, seed: int) -> None:
        self.state, self.random, self.at_ms, self.number = state, random.Random(seed), BEGIN, 0
        self.before: dict[str, list[str]] = {}
        self.sent: list[Interaction] = []
        #: The others' clients say nothing of what they show.
        self.say = [f"user{n}" for n in range(0, 24, 2)]
        state.send(*(Interaction(f"s{user}", user, "video39", "impression", BEGIN) for user in self.say))
        state.settle()

    def act(self) -> None:
        """Some minutes of them."""
        for _ in range(self.random.randrange(1, 6)):
            self.at_ms += self.random.randrange(1_000, 90_000)
            self.state.arrival_ms = self.at_ms
            user = f"user{self.random.randrange(24)}"
            if self.random.random() < 0.3:
                self.before[user] = serve(self.state, user, self.at_ms)
            elif self.sent and self.random.random() < 0.1:
                self.state.send(self.random.choice(self.sent[-5:]))
            else:
                self.send(user)

    def send(self, user: str) -> None:
        self.number += 1
        known = self.before.get(user)
        video = self.random.choice(known) if known and self.random.random() < 0.8 else f"video{self.number % 40}"
        seen = "impression" if user in self.say else "view"
        kind = self.random.choice([seen, "view", "watch", "watch", "like", "skip", "dislike", "share", "unlike"])
        watched = kind == "watch"
        event = Interaction(
            f"e{self.number}", user, video, kind, self.at_ms,  # type: ignore[arg-type]
            self.random.choice([None, 1.25, 7.0, 9.5, 30.0]) if watched else None,
            self.random.choice([None, 5.0, 60.0]) if watched else None,
        )  # fmt: skip
        self.sent.append(event)
        self.state.send(event)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_counted_is_what_a_recount_of_the_logs_finds(seed: int) -> None:
    state = shop()
    audience = Audience(state, seed)
    for _ in range(400):
        audience.act()
        for partition in state.partitions:
            in_order(state, partition)
    state.settle()
    found, plain = counted(state), expected(state)
    assert found == plain
    assert sum(arm["lists"] for arm in found.values()) > 200
    assert all(arm[name] for arm in found.values() for name in MEASURES), "too little happened"
    assert tally_of(state).late == 0


@pytest.mark.parametrize("seed", range(4))
def test_kills_count_nothing_twice_and_keep_what_was_committed(seed: int) -> None:
    state = shop()
    audience = Audience(state, seed)
    cuts: list[dict[int, tuple[int, int]]] = []
    for _ in range(300):
        audience.act()
        for partition in state.partitions:
            in_order(state, partition, audience.random.randrange(8))
            if audience.random.random() < 0.3:
                state.checkpoint(partition)
        if audience.random.random() < 0.03:
            state.restart()
            cuts.append({partition: committed(state, partition) for partition in state.partitions})
    for partition in state.partitions:
        in_order(state, partition)
    assert len(cuts) > 3
    assert counted(state) == expected(state, cuts)
    without_kills = expected(state)
    assert sum(arm["lists"] for arm in without_kills.values()) == sum(arm["lists"] for arm in counted(state).values())
    assert sum((without_kills[arm] - found).total() for arm, found in counted(state).items()) > 0
    state.settle()
    short, waiting, before = tally_of(state).short, int(tally_of(state).waiting().sum()), counted(state)
    assert short > 0
    assert waiting > 0
    state.restart()
    assert tally_of(state).short == short + waiting
    assert tally_of(state).waiting().sum() == 0
    assert counted(state) == before


def committed(state: World, partition: int) -> tuple[int, int]:
    """Where the shard has just gone on, in the log of lists and in that of events."""
    following = state.engine.shards[partition].next
    return following.get(RECOMMENDATIONS, 0), following.get(INTERACTIONS, 0)


def in_order(state: World, partition: int, most: int = 1_000) -> None:
    """Read both logs of a shard by their arrival, as a worker that keeps up does."""
    for _ in range(most):
        heads = [
            (due[0].timestamp, topic)
            for topic in (INTERACTIONS, RECOMMENDATIONS)
            if (due := state.due(topic, partition))
        ]
        if not heads:
            return
        state.step(min(heads, key=lambda head: (head[0], head[1] == INTERACTIONS))[1], partition, 1)


def over(state: World) -> None:
    """Let every window end."""
    state.arrival_ms += LIST_WINDOW_MS + 1
    for partition in state.partitions:
        user = next(user for user in (f"late{n}" for n in range(99)) if state.partition_of(user) == partition)
        state.send(Interaction(f"over{state.arrival_ms}", user, "video39", "view", state.arrival_ms))
    state.settle()


def test_what_is_counted_outlives_the_process_and_reaches_other_workers() -> None:
    state = shop()
    audience = Audience(state, 5)
    for _ in range(150):
        audience.act()
        state.settle()
    audience.state.arrival_ms = audience.at_ms
    over(state)
    assert tally_of(state).waiting().sum() == 0
    before = counted(state)
    state.restart()
    assert counted(state) == before
    assert (tally_of(state).late, tally_of(state).short) == (0, 0)
    other = shop()
    for partition in state.partitions:
        row = state.stores[partition][1].get(rows.TALLY_KEY)
        assert row is not None
        other.engine.take_rows([(rows.TALLY_KEY, row)])
    assert counted(other) == before
    # With another definition it is another experiment; with none, the row is nobody's.
    for experiment in (Experiment("mix", "other", MIX.arms), None):
        changed = World(EngineOptions(partitions=2, experiment=experiment), state.logs, state.stores)
        assert changed.engine.tally is None or not changed.engine.tally.sums().any()
    again = World(EngineOptions(partitions=2, experiment=MIX), state.logs, state.stores)
    assert counted(again) == before


def test_arms_make_other_lists() -> None:
    state = shop()
    kinds = [of_kind(serve(state, user, BEGIN), 0) for user in users_of("kinds")]
    assert kinds == [8] * 5
    # Strangers: nothing but popularity tells their lists apart from chance.
    listed = {arm: serve(state, users_of(arm)[0], BEGIN) for arm in ("control", "plain")}
    assert listed["control"] != listed["plain"]
    assert listed["control"] == serve(state, users_of("control")[1], BEGIN)
    bare = shop(None)
    assert listed["control"] == serve(bare, users_of("control")[0], BEGIN)


def test_a_requests_own_fields_come_before_the_arms() -> None:
    state = shop()
    [user] = users_of("kinds", 1)
    asked, arm = wanted(user, MIX, n=8, filter=None)
    found = personal_list(state.engine, user, state.partition_of(user), asked.wish(arm)).served
    assert of_kind(state.engine.replica.ids_of([place.row for place in found]), 0) < 8


def test_lists_of_no_arm_and_of_another_experiment_are_read_and_not_counted() -> None:
    state = shop()
    [user] = users_of("control", 1)
    others: list[dict[str, object]] = [
        {"experiment": 5}, {"arm": "gone"}, {"arm": "", "experiment": 0}, {"arm": "control", "experiment": 0}
    ]  # fmt: skip
    for number, changed in enumerate(others):
        state.arrival_ms += 1_000
        listed = serve(state, user, state.arrival_ms, changed=changed)
        state.settle()
        state.send(Interaction(f"n{number}", user, listed[0], "view", state.arrival_ms))
        state.settle()
    assert state.engine.exposures["listed"] == 4
    assert not tally_of(state).sums().any()
    assert tally_of(state).late == 0


def test_a_list_whose_events_may_be_forgotten_is_named_and_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_events, "CAPACITY", 8)
    state = shop()
    [user] = users_of("control", 1)
    partition = state.partition_of(user)
    number = 0
    for late, kept_from_ms in enumerate((LATE_MS, LATE_MS + 1)):
        serve(state, user, state.arrival_ms)
        state.arrival_ms += kept_from_ms
        for _ in range(8):
            number += 1
            state.send(Interaction(f"n{number}", user, "video1", "view", state.arrival_ms))
        state.step(INTERACTIONS, partition)
        state.step(RECOMMENDATIONS, partition)
        assert tally_of(state).sums().sum(axis=(0, 1))[0] == 1
        assert tally_of(state).late == late


def test_what_comes_faster_than_the_record_of_its_list_counts() -> None:
    state = shop()
    [user] = users_of("control", 1)
    partition = state.partition_of(user)
    state.send(Interaction("before", user, "video1", "view", state.arrival_ms))
    state.arrival_ms += RACE_MS + 100
    served_ms = state.arrival_ms
    listed = serve(state, user, served_ms)
    state.arrival_ms += 5
    for number, (video, kind) in enumerate(((1, "like"), (0, "impression"), (1, "like"))):
        state.send(Interaction(f"quick{number}", user, listed[video], kind, state.arrival_ms))  # type: ignore[arg-type]
    state.step(INTERACTIONS, partition)
    state.step(RECOMMENDATIONS, partition)
    found = counted(state)["control"]
    assert found == Counter(lists=1, hits=1, shown=2, clicks=1, positives=1, watch_ms=0)
    # An event belongs to one list.
    state.arrival_ms += 5
    serve(state, user, served_ms + 5)
    state.step(RECOMMENDATIONS, partition)
    assert counted(state)["control"] == Counter(found) + Counter(lists=1)
    # Nothing of before it is what followed a list.
    assert tally_of(state).late == 0


def test_an_event_of_just_before_a_list_stays_with_the_older_one_that_it_followed() -> None:
    state = shop()
    [user] = users_of("control", 1)
    partition = state.partition_of(user)
    older = serve(state, user, state.arrival_ms)
    state.settle()
    state.arrival_ms += 5_000
    state.send(Interaction("seen", user, older[0], "impression", state.arrival_ms))
    state.step(INTERACTIONS, partition)
    state.arrival_ms += RACE_MS // 2
    newer = serve(state, user, state.arrival_ms)
    assert older[0] in newer
    state.step(RECOMMENDATIONS, partition)
    [first, second] = [served.followed for _, served in state.engine.shards[partition].served._order]
    assert first is not None
    assert second is not None
    assert (first.shown.sum(), second.shown.sum()) == (1, 0)
    # What came after it, and seemed to have followed the older one, is the newer one's.
    state.send(Interaction("again", user, older[0], "like", state.arrival_ms + 1))
    state.step(INTERACTIONS, partition)
    assert (first.liked.sum(), second.liked.sum()) == (0, 1)


def test_what_follows_a_list_after_a_checkpoint_is_in_the_next() -> None:
    state = shop()
    [user] = users_of("control", 1)
    listed = serve(state, user, state.arrival_ms)
    state.settle()
    state.send(Interaction("later", user, listed[0], "like", state.arrival_ms + 1))
    state.settle()
    before = counted(state)
    assert before["control"]["positives"] == 1
    state.restart()
    assert counted(state) == before


@pytest.mark.parametrize("most", [1, 20, 1_000])
def test_a_log_that_is_read_anew_counts_alike(most: int) -> None:
    """Events by the chunk, then the lists that came before the last of them, as the worker reads them."""
    state = shop()
    audience = Audience(state, 3)
    for _ in range(250):
        audience.act()
        for partition in state.partitions:
            in_order(state, partition)
    in_time = counted(state)
    state.stores.clear()
    state.restart()
    for partition in state.partitions:
        state.step("videos", partition)
        while events := state.due(INTERACTIONS, partition)[:most]:
            for reached_ms in (events[0].timestamp, events[-1].timestamp):
                lists = [record for record in state.due(RECOMMENDATIONS, partition) if record.timestamp <= reached_ms]
                state.give(RECOMMENDATIONS, partition, lists)
                state.give(INTERACTIONS, partition, events)
        state.step(RECOMMENDATIONS, partition)
    assert counted(state) == in_time
    assert sum(arm["hits"] for arm in in_time.values()) > 50
    assert tally_of(state).late == 0


def test_places_of_later_pages_are_told_to_the_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    taught = []
    monkeypatch.setattr(feedback, "_teach", lambda _engine, _shard, inputs, _outcomes: taught.append(inputs.copy()))
    state = shop(partitions=1)
    listed = serve(state, "ann", state.arrival_ms, changed={"first": 30})
    state.settle()
    state.send(Interaction("i", "ann", listed[2], "impression", state.arrival_ms))
    state.settle()
    for n in range(30):
        state.arrival_ms += 60_000
        state.send(Interaction(f"p{n}", f"passer{n}", "video5", "like", state.arrival_ms))
        state.settle()
    places = [float(inputs[INPUTS.index("place")]) for inputs in taught]
    assert sum(abs(place - np.log1p(32)) < 1e-6 for place in places) == 1


def test_without_an_experiment_nothing_is_counted_or_written() -> None:
    state = shop(None)
    serve(state, "user1", BEGIN)
    state.settle()
    assert state.engine.tally is None
    assert all(store.get(rows.TALLY_KEY) is None for _, store in state.stores.values())
    assert not state.engine.shards[partition_of(b"user1", 2)].served._order[0][1].followed
