"""Lessons of the heads: what is an exposure, what followed it, and that nothing of it was known before."""

import numpy as np
import pytest

from agents import feedback
from online_models.heads import HEADS, INPUTS
from state import rows
from state.exposures import WINDOW_MS
from state.lists import list_inputs
from state.quota import Quota
from state.types import Float32Array, Float64Array
from tests.agents.test_ranking import shop
from tests.agents.world import EVIDENCE, NOW_MS, World
from topics.interactions import Interaction
from topics.recommendations import encode_list, hash_names
from topics.specs import INTERACTIONS, RECOMMENDATIONS

Lessons = list[tuple[Float32Array, Float64Array]]
BEGIN = NOW_MS - 30 * 86_400_000


class Log:
    """Events of a session, each a second after the last; how far the stream has come is up to the test."""

    def __init__(self, state: World) -> None:
        self.state, self.number, self.at_ms = state, 0, BEGIN

    def send(
        self, user: str, video: str, event: str, seconds: float | None = None, length: float | None = None
    ) -> None:
        self.number += 1
        self.at_ms += 1_000
        self.state.arrival_ms = self.at_ms
        self.state.send(
            Interaction(f"e{self.number}", user, video, event, self.at_ms, seconds, length)  # type: ignore[arg-type]
        )
        self.state.settle()

    def pass_time(self) -> None:
        """Others go on liking until every window is over."""
        for n in range(40):
            self.at_ms += WINDOW_MS // 10
            self.send(f"passer{self.number}", f"video{20 + n % 5}", "like")


@pytest.fixture
def lessons(monkeypatch: pytest.MonkeyPatch) -> Lessons:
    """What the heads are taught, as it happens."""
    taught: Lessons = []
    teach = feedback._teach

    def noted(engine: object, shard: object, inputs: Float32Array, outcomes: Float64Array) -> None:
        taught.append((inputs.copy(), outcomes.copy()))
        teach(engine, shard, inputs, outcomes)  # type: ignore[arg-type]

    monkeypatch.setattr(feedback, "_teach", noted)
    return taught


def outcome(lesson: tuple[Float32Array, Float64Array], head: str) -> float:
    return float(lesson[1][HEADS.index(head)])


def value(lesson: tuple[Float32Array, Float64Array], name: str) -> float:
    return float(lesson[0][INPUTS.index(name)])


def only(taught: Lessons, log: Log, n: int = 1) -> Lessons:
    """The lessons of the first `n` exposures, before those of the passers."""
    log.pass_time()
    assert len(taught) >= n
    return taught[:n]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], {"long_view": 0, "like": 0, "click": 0, "skip": 0, "watch_share": 0}),
        ([("watch", 30.0, 60.0)], {"long_view": 1, "like": 0, "click": 1, "skip": 0, "watch_share": 0.5}),
        ([("watch", 8.0, 60.0)], {"long_view": 0, "click": 1, "skip": 0, "watch_share": 8 / 60}),
        ([("watch", 2.0, 60.0)], {"long_view": 0, "click": 0, "skip": 1, "watch_share": 2 / 60}),
        ([("watch", 90.0, 60.0)], {"long_view": 1, "watch_share": 1.0}),
        ([("watch", 2.0, 60.0), ("watch", 40.0, 60.0)], {"long_view": 1, "click": 1, "watch_share": 40 / 60}),
        ([("like", None, None)], {"like": 1, "long_view": 0, "click": 0}),
        ([("like", None, None), ("unlike", None, None)], {"like": 0}),
        ([("view", None, None), ("skip", None, None)], {"click": 1, "skip": 1}),
        ([("dislike", None, None)], {"skip": 1, "like": 0}),
    ],
)
def test_what_follows_an_impression_is_its_outcome(
    lessons: Lessons, events: list[tuple[str, float | None, float | None]], expected: dict[str, float]
) -> None:
    log = Log(shop())
    log.send("ann", "video1", "impression")
    for event in events:
        log.send("ann", "video1", *event)
    [lesson] = only(lessons, log)
    found = {head: outcome(lesson, head) for head in expected}
    assert found == pytest.approx(expected)


def test_a_watch_of_unknown_length_leaves_its_share_unknown(lessons: Lessons) -> None:
    log = Log(shop())
    log.send("ann", "video1", "impression")
    log.send("ann", "video1", "watch", 30.0)
    [lesson] = only(lessons, log)
    assert np.isnan(outcome(lesson, "watch_share"))
    assert outcome(lesson, "long_view") == 1.0


def test_nothing_is_learned_before_the_window_is_over(lessons: Lessons) -> None:
    log = Log(shop())
    log.send("ann", "video1", "impression")
    for n in range(5):
        log.send(f"other{n}", "video2", "like")
    assert not lessons
    log.send("ann", "video3", "impression")
    log.send("ann", "video1", "like")
    lesson = only(lessons, log)[0]
    assert outcome(lesson, "like") == 1.0, "also after the user has gone on"


def test_what_comes_after_the_window_is_late_and_no_exposure(lessons: Lessons) -> None:
    log = Log(shop())
    log.send("ann", "video1", "impression")
    log.send("ann", "video2", "impression")
    log.pass_time()
    before = len([1 for lesson in lessons if outcome(lesson, "like") == 1.0])
    late = log.state.engine.exposures["late"]
    log.send("ann", "video1", "like")
    log.pass_time()
    assert log.state.engine.exposures["late"] == late + 1
    mine = [lesson for lesson in lessons if value(lesson, "user_tries") == pytest.approx(np.log1p(2))]
    assert not [lesson for lesson in mine if outcome(lesson, "like") == 1.0]
    assert before >= 0


def test_inputs_are_of_before_the_exposure_also_in_one_batch(lessons: Lessons) -> None:
    """A row of a log may be an impression, a watch and a like at one time, learned together."""
    apart, together = Log(shop()), Log(shop())
    for log, one_batch in ((apart, False), (together, True)):
        for video in ("video3", "video4"):
            log.send("ann", video, "impression")
            log.send("ann", video, "like")
        log.pass_time()
        lessons.clear()
        kinds = ("impression", "watch", "like")
        for kind in kinds:
            log.number += 1
            watched = (40.0, 60.0) if kind == "watch" else (None, None)
            event = Interaction(f"x{log.number}", "ann", "video1", kind, log.at_ms + 5_000, *watched)  # type: ignore[arg-type]
            log.state.send(event)
            if not one_batch:
                log.state.settle()
        log.state.settle()
        log.at_ms += 5_000
        log.pass_time()
        [lesson] = [each for each in lessons if value(each, "user_tries") == pytest.approx(np.log1p(2))]
        assert outcome(lesson, "like") == outcome(lesson, "long_view") == 1.0
        assert value(lesson, "user_tries") == pytest.approx(np.log1p(2))
        assert value(lesson, "user_length") == pytest.approx(2 / 20)
        if log is apart:
            first = lesson[0]
        else:
            np.testing.assert_allclose(lesson[0], first, atol=1e-5)


def test_a_client_without_impressions_has_exposures_too(lessons: Lessons) -> None:
    log = Log(shop())
    log.send("ann", "video1", "watch", 2.0, 60.0)
    lesson = only(lessons, log)[0]
    assert outcome(lesson, "skip") == 1.0


def test_events_that_come_twice_are_one_outcome(lessons: Lessons) -> None:
    state = shop()
    log = Log(state)
    log.send("ann", "video1", "impression")
    event = Interaction("once", "ann", "video1", "unlike", log.at_ms)
    state.send(event)
    log.send("ann", "video1", "like")
    state.send(event)
    state.settle()
    [lesson] = only(lessons, log)
    assert outcome(lesson, "like") == 1.0, "the second unlike is the first one's duplicate"


def test_a_deleted_video_and_a_user_who_was_evicted_are_lost() -> None:
    state = shop()
    log = Log(state)
    log.send("ann", "video1", "impression")
    log.send("bob", "video2", "impression")
    state.put("video1", None)
    state.settle()
    slot = state.engine.users.peek("bob")
    assert slot is not None
    state.engine.users.drop(slot)
    log.pass_time()
    assert state.engine.exposures["lost"] == 2


def test_a_restart_loses_what_was_waited_for_and_invents_nothing(lessons: Lessons) -> None:
    state = shop()
    log = Log(state)
    log.send("ann", "video1", "impression")
    state.restart()
    log.send("ann", "video1", "like")
    log.pass_time()
    assert not [lesson for lesson in lessons if value(lesson, "user_tries") == pytest.approx(np.log1p(1))]


def test_what_the_heads_have_learned_outlives_the_process_and_reaches_others() -> None:
    state = shop()
    log = Log(state)
    for n in range(20):
        log.send(f"user{n}", "video1", "impression")
        log.send(f"user{n}", "video1", "like")
    log.pass_time()
    learned = state.engine.heads.lessons
    assert learned >= 20
    part = state.engine.heads.part(0)
    row = state.stores[0][1].get(rows.HEADS_KEY)
    assert row is not None
    state.restart()
    np.testing.assert_array_equal(state.engine.heads.part(0), part)
    other = shop(2)
    other.engine.take_rows([(rows.HEADS_KEY, row)])
    assert other.engine.heads.lessons == learned


def served(state: World, user: str, videos: list[str], at_ms: int, inputs: bool = True) -> Float32Array:
    """A list that was served, in the log of lists."""
    partition = state.partition_of(user)
    slot = state.engine.users.find(user, partition)
    context = state.engine.stranger() if slot is None else state.engine.context(slot)
    found = list_inputs(state.engine, context, np.array([state.row(video) for video in videos], np.int32))
    value = encode_list("r", at_ms, "owner", videos, [], hash_names(INPUTS), found if inputs else None)
    state.arrival_ms = at_ms
    state.append(RECOMMENDATIONS, partition, user.encode(), value)
    shard = state.engine.shards[partition]
    feedback.step(state.engine, shard, RECOMMENDATIONS, state.due(RECOMMENDATIONS, partition))
    return found


def test_an_exposure_from_a_list_has_the_lists_inputs_and_its_place(lessons: Lessons) -> None:
    state = shop()
    log = Log(state)
    log.send("ann", "video9", "like")
    found = served(state, "ann", ["video3", "video1", "video2"], log.at_ms)
    for n in range(5):
        log.send(f"other{n}", "video1", "like")
    log.send("ann", "video1", "impression")
    log.send("ann", "video1", "like")
    log.pass_time()
    [lesson] = [lesson for lesson in lessons if value(lesson, "place") > 0.0]
    assert value(lesson, "place") == pytest.approx(np.log(2))
    same = [n for n, name in enumerate(INPUTS) if name != "place"]
    np.testing.assert_array_equal(lesson[0][same], found[1][same])
    assert outcome(lesson, "like") == 1.0


def test_a_list_without_inputs_still_tells_the_place(lessons: Lessons) -> None:
    state = shop()
    log = Log(state)
    served(state, "ann", ["video3", "video1"], log.at_ms, inputs=False)
    log.send("ann", "video1", "impression")
    [lesson] = only(lessons, log)
    assert value(lesson, "place") == pytest.approx(np.log(2))


def test_without_impressions_what_stands_above_the_played_one_was_passed_over(lessons: Lessons) -> None:
    state = shop()
    log = Log(state)
    served(state, "ann", ["video3", "video1", "video2", "video4"], log.at_ms)
    log.send("ann", "video2", "watch", 40.0, 60.0)
    for _ in range(4):
        log.pass_time()
    passed = [lesson for lesson in lessons if not lesson[1].any() and value(lesson, "user_tries") == 0.0]
    places = sorted(value(lesson, "place") for lesson in passed)
    assert places == pytest.approx([0.0, np.log(2)]), "not what stands below it"
    assert state.engine.exposures["unanswered"] == 0


def test_a_list_that_nothing_follows_teaches_nothing(lessons: Lessons) -> None:
    state = shop()
    log = Log(state)
    served(state, "ann", ["video3", "video1"], log.at_ms)
    for _ in range(4):
        log.pass_time()
    assert state.engine.exposures["unanswered"] == 1
    assert not [lesson for lesson in lessons if value(lesson, "place") > 0.0]


@pytest.mark.parametrize("broken", [b"", b"no list", None])
def test_lists_that_cannot_be_read_are_counted_and_harm_no_other(lessons: Lessons, broken: bytes | None) -> None:
    state = shop()
    log = Log(state)
    state.append(RECOMMENDATIONS, 0, b"ann", broken)
    other = encode_list("r", 1, "owner", ["video1"], [], hash_names(("x",)), np.zeros((1, 1), np.float32))
    state.append(RECOMMENDATIONS, 0, b"ann", other)
    nan = np.full((1, len(INPUTS)), np.nan, np.float32)
    state.append(RECOMMENDATIONS, 0, b"ann", encode_list("r", 1, "owner", ["video1"], [], hash_names(INPUTS), nan))
    served(state, "ann", ["video3", "video1"], log.at_ms)
    assert state.engine.exposures["unreadable"] == 3
    assert state.engine.exposures["listed"] == 1
    assert not state.due(RECOMMENDATIONS, 0)
    assert not lessons


def test_lists_are_read_once() -> None:
    state = shop()
    served(state, "ann", ["video3"], BEGIN)
    feedback.step(state.engine, state.engine.shards[0], RECOMMENDATIONS, state.log(RECOMMENDATIONS, 0))
    assert state.engine.exposures["listed"] == 1


def test_exposures_have_their_ration_and_all_else_is_learned(lessons: Lessons) -> None:
    state = shop()
    state.engine.shards[0].heads_quota = Quota(0.0, 3.0)
    log = Log(state)
    for n in range(10):
        log.send(f"user{n}", "video1", "impression")
    log.pass_time()
    assert len(lessons) == 3
    assert state.engine.replica.counts[state.row("video1"), 0] == 10


def test_batches_do_not_matter_to_what_is_learned(lessons: Lessons) -> None:
    found = []
    for chunk in (1, 50):
        state = shop()
        lessons.clear()
        number = 0
        for step in range(30):
            for kind in ("impression", "like") if step % 3 else ("impression",):
                number += 1
                at_ms = BEGIN + step * 60_000
                state.send(Interaction(f"e{number}", f"user{step % 7}", f"video{step % 11}", kind, at_ms))
        while state.step(INTERACTIONS, 0, chunk):
            while state.step(EVIDENCE, 0):
                pass
            state.checkpoint_all()
        log = Log(state)
        log.at_ms = BEGIN + 30 * 60_000
        log.pass_time()
        found.append(sorted(float(lesson[1][HEADS.index("like")]) for lesson in lessons))
    assert len(found[0]) > 30
    assert len(found[0]) == len(found[1])
