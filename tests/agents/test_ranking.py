"""Lessons of the ranker: which events teach it, from what was known before them, and where what they taught is kept."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from agents import ranking as lessons
from online_models.base import Float32Array, Float64Array
from online_models.features import FEATURES, Described
from online_models.ranker import PARAMETERS, SIZE, Lesson
from state import ranking, rows
from state.lists import recommend
from state.quota import Quota
from state.shard import Checkpoint, Shard
from tests.agents.world import EVIDENCE, NOW_MS, World, liked, world
from topics.catalog import Video
from topics.interactions import Interaction
from topics.specs import INTERACTIONS

VIDEOS = 30
DAY_MS = 86_400_000


def shop(partitions: int = 1, videos: int = VIDEOS) -> World:
    """A catalogue that nobody has used yet."""
    state = world(partitions)
    for n in range(videos):
        # One after the other: what is described first shapes what a later video's words weigh, in every process.
        published_ms = NOW_MS - 90 * DAY_MS + n
        state.put(f"video{n}", Video(title=f"film {n}", categories=(f"kind{n % 3}",), published_ms=published_ms))
    state.settle()
    return state


def busy(partitions: int = 1, seed: int = 1) -> World:
    """One with an audience that has taught the ranker something."""
    state, rng = shop(partitions), np.random.default_rng(seed)
    events = []
    for number in range(240):
        user, video = int(rng.integers(0, 20)), int(rng.integers(0, VIDEOS))
        kind = "like" if number % 3 else "view"
        events.append(
            liked(f"user{user}", f"video{video}", number, event=kind, at_ms=NOW_MS - DAY_MS + 60_000 * number)
        )
    state.send(*events)
    # Batches, so that most lessons follow others.
    for partition in state.partitions:
        while state.step(INTERACTIONS, partition, 20):
            state.checkpoint(partition)
    state.settle()
    return state


def happened(state: World, *events: Interaction) -> dict[str, int]:
    """What lessons became of these events, each in a batch of its own."""
    before = dict(state.engine.lessons)
    for event in events:
        state.send(event)
        state.settle()
    return {name: n - before.get(name, 0) for name, n in state.engine.lessons.items() if n > before.get(name, 0)}


def test_a_first_positive_of_a_known_video_is_a_lesson_and_nothing_else_is() -> None:
    state = shop()
    assert happened(state, liked("ann", "video1", 1)) == {"learned": 1}
    part = state.engine.ranker.part(0)
    assert part.any()
    others = [
        liked("ann", "video1", 2),
        liked("ann", "video1", 1),
        liked("ann", "video1", 3, event="share"),
        liked("ann", "video2", 4, event="view"),
        Interaction("e5", "ann", "video3", "watch", NOW_MS, 1.0, 60.0),
        liked("ann", "video4", 6, event="dislike"),
        liked("ann", "video1", 7, event="unlike"),
        liked("ann", "video5", 8, event="impression"),
    ]
    assert happened(state, *others) == {}
    assert state.engine.ranker.part(0).tobytes() == part.tobytes()
    assert happened(state, liked("ann", "video2", 9), liked("bob", "video1", 10)) == {"learned": 2}
    assert state.totals()["positives"] == 3


def test_the_event_that_brings_a_video_teaches_nothing_and_the_next_one_does() -> None:
    state = shop()
    assert happened(state, liked("ann", "brand new", 1)) == {"no_candidate": 1}
    assert happened(state, liked("bob", "brand new", 2)) == {"learned": 1}
    # Both before its first evidence is applied: neither could have been served it.
    state.send(liked("ann", "newer still", 3), liked("bob", "newer still", 4))
    state.step(INTERACTIONS, 0)
    assert state.engine.lessons["no_candidate"] == 3
    # An event without a lesson makes it known as well.
    assert happened(state, liked("ann", "viewed", 5, event="view"), liked("bob", "viewed", 6)) == {"learned": 1}


def test_what_cannot_be_listed_teaches_nothing() -> None:
    state = shop()
    state.put("video7", Video(title="x", hidden=True))
    state.put("video8", None)
    state.settle()
    assert happened(state, liked("ann", "video7", 1)) == {"no_candidate": 1}
    assert happened(state, liked("ann", "video8", 2)) == {}
    assert not state.engine.ranker.part(0).any()


def test_a_choice_without_an_alternative_teaches_nothing() -> None:
    state = shop(videos=2)
    # What somebody has seen is no alternative for them any more.
    assert happened(state, liked("ann", "video0", 1)) == {"learned": 1}
    assert happened(state, liked("ann", "video1", 2)) == {"no_candidate": 1}


@contextmanager
def heard(state: World) -> Iterator[list[tuple[int, Described, int, int]]]:
    """Lessons as the ranker gets them: shard, candidates, length of the history, place of the chosen one."""
    found: list[tuple[int, Described, int, int]] = []
    learn = state.engine.ranker.learn

    def listen(
        number: int, described: Described, history_length: int, chosen: int, seed: int, weight: float = 1.0
    ) -> Lesson:
        found.append((number, described, history_length, chosen))
        return learn(number, described, history_length, chosen, seed, weight)

    state.engine.ranker.learn = listen  # type: ignore[method-assign] # listens in
    try:
        yield found
    finally:
        state.engine.ranker.learn = learn  # type: ignore[method-assign]


def test_a_lesson_is_what_would_have_been_served_the_moment_before() -> None:
    state = busy()
    engine = state.engine
    slot = engine.users.find("user3", 0)
    assert slot is not None
    context = engine.context(slot)
    allowed = engine.replica.active[: len(engine.replica)].copy()
    allowed[engine.replica.find_codes(engine.users.seen(slot))] = False
    chosen = ranking.score_rows(engine, context, allowed, 5).rows[3]
    # What they have open will have been passed over, unless they have liked it.
    assert len(context.passed) > 1
    before = ranking.find(engine, context, allowed)
    with heard(state) as given:
        assert happened(state, liked("user3", str(engine.replica.ids[chosen]), 9_001)) == {"learned": 1}
    [(shard, described, length, place)] = given
    assert (shard, length) == (0, len(context.history))
    assert before.rows[place] == chosen
    for one, other in zip(described, before.described, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("user", [f"user{n}" for n in range(20)])
def test_what_is_served_and_what_is_learned_agree_on_what_was_passed_over(user: str) -> None:
    state = busy()
    slot = state.engine.users.find(user, 0)
    assert slot is not None
    served = state.engine.context(slot).passed
    chosen = next(f"video{n}" for n in range(VIDEOS) if state.row(f"video{n}") not in state.engine.users.history[slot])
    state.send(liked(user, chosen, 9_001))
    state.step(INTERACTIONS, 0)
    # What they have liked since is not among it.
    expected = [row for row in served.tolist() if row != state.row(chosen)]
    assert [row for row in state.engine.users.passed[slot].tolist() if row >= 0][: len(expected)] == expected


def test_what_was_passed_over_just_before_is_part_of_the_lesson() -> None:
    state = shop()
    state.send(*(liked("ann", f"video{n}", n, event="view") for n in range(3)))
    state.settle()
    engine = state.engine
    with heard(state) as given:
        happened(state, liked("ann", "video5", 11))
    [(_, described, _, _)] = given
    passed = np.array([state.row(f"video{n}") for n in (2, 1, 0)], np.int32)
    q = engine.mf.columns["q"]
    norm = np.sqrt(1 + 0.9 + 0.81)
    away = (q[passed[0]] + 0.9 * q[passed[1]] + 0.81 * q[passed[2]]) / norm
    video9 = state.row("video9")
    # Factors have moved since, by one step.
    assert column(described, "passed")[video9] == pytest.approx(float(q[video9] @ away), abs=2e-3)
    assert column(described, "passed").any()


def test_that_the_chosen_video_was_shown_to_the_user_is_no_news_to_the_lesson() -> None:
    """When it was listed it had not been; of the others all is known that was shown until now."""
    state = shop()
    engine = state.engine
    state.send(liked("bob", "video5", 1, event="view"), liked("bob", "video6", 2, event="view"))
    state.settle()
    video5, video6 = state.row("video5"), state.row("video6")
    came = engine.popularity.shown_features(np.array([video5], np.int32), engine.now())[0]
    state.send(*(liked("ann", "video5", n, event="view") for n in (3, 4)))
    state.settle()
    state.send(*(liked(f"user{n}", f"video{5 + n % 2}", 10 + n, event="view") for n in range(8)))
    state.settle()
    with heard(state) as given:
        assert happened(state, liked("ann", "video5", 30)) == {"learned": 1}
    [(_, described, _, place)] = given
    assert place == video5
    assert [column(described, name)[place] for name in ("shown_300", "shown_3000")] == came.tolist()
    np.testing.assert_allclose(column(described, "shown_300")[video6], np.log(5.1), rtol=1e-3)


def test_a_choice_in_the_batch_in_which_the_user_comes_is_learned_as_things_stand() -> None:
    state = shop()
    state.send(*(liked(f"user{n}", "video5", n, event="view") for n in range(3)))
    state.settle()
    state.send(liked("ann", "video4", 10, event="view"))
    state.settle()
    state.send(liked("ann", "video5", 11, event="view"), liked("ann", "video5", 12))
    with heard(state) as given:
        state.settle()
    [(_, described, _, place)] = given
    np.testing.assert_allclose(column(described, "shown_300")[place], np.log(3.1), rtol=1e-3)


def test_each_lesson_of_a_batch_has_the_history_before_its_own_event() -> None:
    state = shop()
    state.send(liked("ann", "video1", 1), liked("ann", "video2", 2), liked("bob", "video3", 3, event="view"))
    state.send(liked("bob", "video4", 4), liked("ann", "video4", 5), liked("bob", "video5", 6))
    with heard(state) as given:
        state.step(INTERACTIONS, 0)
    assert [length for _, _, length, _ in given] == [0, 1, 0, 2, 1]
    assert [column(described, "content_last").any() for _, described, _, _ in given] == [False, True, False, True, True]
    # Bob alone has gone on from something.
    assert [column(described, "passed").any() for _, described, _, _ in given] == [False, False, True, False, True]


def test_what_was_known_when_the_user_came_is_lost_with_the_process_and_then_nothing_is_learned() -> None:
    """Better no lesson than one that says that what is chosen has been shown once more often than what is not."""
    state = shop()
    state.send(liked("ann", "video5", 1, event="view"))
    state.settle()
    state.restart()
    assert happened(state, liked("ann", "video5", 2)) == {"no_candidate": 1}
    assert not state.engine.ranker.part(0).any()
    assert happened(state, liked("ann", "video6", 3)) == {"learned": 1}


def column(described: Described, name: str) -> Float32Array:
    return described.items[:, FEATURES.index(name)]


def candidates(state: World, user: str = "user1") -> tuple[Described, int]:
    """What could be served to somebody now."""
    engine = state.engine
    slot = engine.users.find(user, state.partition_of(user))
    assert slot is not None
    context = engine.context(slot)
    found = ranking.find(engine, context, engine.replica.active[: len(engine.replica)])
    return found.described, len(context.history)


def parts_in(taken: Checkpoint | None) -> list[tuple[int, Float64Array]]:
    assert taken is not None
    return [
        rows.decode_part(rows.RANKER_KEY, value)
        for key, value in taken.items
        if key == rows.RANKER_KEY and value is not None
    ]


def test_the_part_is_in_the_next_checkpoint_of_its_shard_and_in_no_other() -> None:
    state = shop(partitions=2)
    home, other = state.partition_of("ann"), 1 - state.partition_of("ann")
    state.send(liked("ann", "video1", 1))
    state.step(INTERACTIONS, home)
    part = state.engine.ranker.part(home)
    assert part[2 * PARAMETERS] == VIDEOS
    [(number, written)] = parts_in(state.checkpoint(home))
    assert number == home
    np.testing.assert_array_equal(written, part)
    # Evidence, and events that teach nothing.
    state.settle()
    state.send(liked("ann", "video2", 2, event="view"), liked("ann", "unheard of", 3))
    state.step(INTERACTIONS, home)
    assert parts_in(state.checkpoint(home)) == []
    other_user = next(name for name in (f"u{n}" for n in range(99)) if state.partition_of(name) == other)
    state.send(liked(other_user, "video3", 4, event="view"))
    state.step(INTERACTIONS, other)
    assert parts_in(state.checkpoint(other)) == []
    # And again once there is something new.
    state.send(liked("ann", "video4", 5))
    state.step(INTERACTIONS, home)
    [(_, written)] = parts_in(state.checkpoint(home))
    assert written[2 * PARAMETERS] > VIDEOS


def test_a_lesson_that_is_refused_is_written_nowhere() -> None:
    state = shop()
    part = np.zeros(SIZE)
    state.engine.ranker.put(5, part)
    # A weight that no lesson may leave where it is.
    state.engine.ranker._parts.total[3] = 1e9
    assert happened(state, liked("ann", "video1", 1)) == {"refused": 1}
    assert state.stores[0][1].get(rows.RANKER_KEY) is None


@pytest.mark.parametrize("partitions", [1, 3])
def test_after_a_restart_the_ranker_scores_as_before(partitions: int) -> None:
    state = busy(partitions)
    described, length = candidates(state)
    ranker = state.engine.ranker
    scores = ranker.scores(described, length)
    parts = [ranker.part(partition) for partition in state.partitions]
    assert all(part.any() for part in parts)
    state.restart()
    assert state.engine.ranker is not ranker
    for partition, part in enumerate(parts):
        np.testing.assert_array_equal(state.engine.ranker.part(partition), part)
    np.testing.assert_allclose(state.engine.ranker.scores(described, length), scores, rtol=1e-5, atol=1e-5)
    assert state.engine.ranker.compared == ranker.compared
    # What has been learned is no small part of the score.
    assert np.abs(scores - shop().engine.ranker.scores(described, length)).max() > 0.1


def listed(state: World, user: str, n: int = 10) -> list[str]:
    served, _ = recommend(state.engine, user, state.partition_of(user), n)
    return state.engine.replica.ids_of(place.row for place in served)


def test_after_a_restart_everybody_gets_the_same_list() -> None:
    state = busy()
    before = {user: listed(state, user) for user in [f"user{n}" for n in range(20)] + ["nobody"]}
    state.restart()
    assert {user: listed(state, user) for user in before} == before


def test_after_a_restart_what_is_popular_is_a_candidate_before_the_next_positive_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As in a catalogue that is large against what the other sources propose.
    monkeypatch.setattr(ranking, "FROM_FACTORS", 1)
    state = busy()
    for _ in range(2):
        engine = state.engine
        n = len(engine.replica)
        found = ranking.find(engine, engine.stranger(), engine.replica.active[:n]).rows
        assert set(found.tolist()) >= set(np.flatnonzero(engine.popularity.columns["plays"][:n]).tolist())
        assert len(found) > 20
        state.restart()


def test_a_kill_before_the_checkpoint_loses_lessons_that_are_then_learned_once() -> None:
    lived, killed = shop(), shop()
    for state in (lived, killed):
        state.send(*(liked(f"user{n % 7}", f"video{n % VIDEOS}", n) for n in range(60)))
    for state, dies in ((lived, False), (killed, True)):
        for _ in range(3):
            # Both have read their rows, and so have them in the same order: negatives are drawn by it.
            state.restart()
            if dies:
                state.step(INTERACTIONS, 0, 20)
                assert state.engine.lessons["learned"] > 0
                state.restart()
            state.step(INTERACTIONS, 0, 20)
            state.checkpoint(0)
            state.step(EVIDENCE, 0)
            state.checkpoint(0)
    assert killed.totals()["positives"] == lived.totals()["positives"]
    np.testing.assert_allclose(killed.engine.ranker.part(0), lived.engine.ranker.part(0), rtol=1e-5, atol=1e-6)
    assert lived.engine.ranker.compared > 500


def test_a_shard_that_comes_back_without_its_last_checkpoint_has_none_of_its_lessons() -> None:
    """Its events come again, and teach once more."""
    state = shop()
    shard = state.engine.shards[0]
    state.send(liked("ann", "video1", 1))
    state.step(INTERACTIONS, 0)
    assert state.engine.ranker.part(0).any()
    state.engine.remove_shard(0)
    state.engine.add_shard(Shard(0, *state.stores[0], rows.decode_cut(state.stores[0][0].get(rows.CUT_KEY) or b"")))
    assert state.engine.shards[0] is not shard
    state.settle()
    assert state.engine.ranker.compared == VIDEOS


def test_a_row_of_another_worker_replaces_the_part_of_its_shard() -> None:
    here, there = busy(2, seed=1), busy(2, seed=2)
    engine = here.engine
    own, foreign = engine.ranker.part(0), there.engine.ranker.part(1)
    described, length = candidates(here)
    before = engine.ranker.scores(described, length)
    for _ in range(2):
        engine.take_rows([(rows.RANKER_KEY, rows.encode_part(rows.RANKER_KEY, 1, foreign))])
    np.testing.assert_array_equal(engine.ranker.part(0), own)
    np.testing.assert_array_equal(engine.ranker.part(1), foreign)
    both = there.engine.ranker
    both.put(0, own)
    np.testing.assert_allclose(
        engine.ranker.scores(described, length), both.scores(described, length), rtol=1e-5, atol=1e-5
    )
    assert np.abs(engine.ranker.scores(described, length) - before).max() > 1e-3
    # Rows that hold no part leave it, and one that is not sound is not taken.
    engine.take_rows([(rows.VIDEO + b"video1", rows.encode_video_row(Video(title="x")))])
    engine.take_rows([(rows.RANKER_KEY, rows.encode_part(rows.RANKER_KEY, 1, np.full(SIZE, np.nan)))])
    np.testing.assert_array_equal(engine.ranker.part(1), foreign)


def test_the_parts_of_all_shards_make_the_ranker_of_each_worker() -> None:
    """A shard's lessons change its own part only, and what others serve as soon as its row is read."""
    state = busy(3)
    follower = shop(3)
    for partition in state.partitions:
        row = state.stores[partition][1].get(rows.RANKER_KEY)
        assert row is not None
        follower.engine.take_rows([(rows.RANKER_KEY, row)])
    described, length = candidates(state)
    np.testing.assert_allclose(
        follower.engine.ranker.scores(described, length),
        state.engine.ranker.scores(described, length),
        rtol=1e-5,
        atol=1e-5,
    )


def test_one_video_whose_numbers_are_broken_does_not_end_all_lessons() -> None:
    state = busy()
    state.engine.mf.columns["q"][state.row("video7")] = np.nan
    assert happened(state, liked("newcomer", "video3", 9_001)) == {"learned": 1}
    assert "video7" not in listed(state, "newcomer", 30)


def rationed(state: World, per_day: float, burst: float) -> None:
    """Give the only shard a quota of its own."""
    state.engine.shards[0].ranker_quota = Quota(per_day, burst)


def test_a_day_of_the_stream_has_its_ration_of_lessons_and_no_more() -> None:
    state = shop(videos=60)
    rationed(state, per_day=500.0, burst=100.0)
    counts = []
    for day in range(4):
        before = state.engine.lessons.total()
        begin = NOW_MS - (10 - day) * DAY_MS
        state.send(
            *(
                liked(f"user{day}-{n}", f"video{n % 60}", 2_000 * day + n, at_ms=begin + n * 43_000)
                for n in range(2_000)
            )
        )
        while state.step(INTERACTIONS, 0, 20):
            while state.step(EVIDENCE, 0):
                pass
            state.checkpoint_all()
        counts.append(state.engine.lessons.total() - before)
    assert 500 <= counts[0] <= 640, "a day and the burst"
    assert all(400 <= count <= 520 for count in counts[1:])


def test_without_a_ration_nothing_is_taught_and_all_else_is_learned() -> None:
    state = shop(videos=60)
    rationed(state, per_day=0.0, burst=0.0)
    state.send(*(liked(f"user{n}", f"video{n % 60}", n) for n in range(100)))
    state.settle()
    assert state.engine.lessons.total() == 0
    assert state.totals()["positives"] >= 100


def test_of_many_positives_those_that_teach_are_spread_over_the_batch() -> None:
    seeds = np.arange(1_000, dtype=np.uint64)
    chosen = np.flatnonzero(lessons.drawn(1, seeds, 100))
    assert len(chosen) == 100
    assert all(10 <= ((chosen >= low) & (chosen < low + 200)).sum() <= 32 for low in range(0, 1_000, 200))
    assert lessons.drawn(1, seeds, 0).sum() == 0
    assert lessons.drawn(1, seeds, 5_000).all()


def test_a_batch_is_so_small_that_its_lessons_hold_the_loop_for_milliseconds() -> None:
    state = world(1)
    shard = state.engine.shards[0]
    assert lessons.batch_of(state.engine, shard, 1_000) == 100
    assert lessons.batch_of(state.engine, shard, 1) == 1
    rationed(state, per_day=0.0, burst=lessons.LESSONS_WAIT - 1)
    assert lessons.batch_of(state.engine, shard, 1_000) == 1_000


def test_one_batch_takes_so_many_lessons_at_most_and_the_next_go_on() -> None:
    state = shop(videos=60)
    rationed(state, per_day=0.0, burst=60.0)
    state.send(*(liked(f"user{n}", f"video{n % 60}", n) for n in range(300)))
    counts = []
    while state.step(INTERACTIONS, 0, 100):
        counts.append(state.engine.lessons.total())
    assert counts == [25, 50, 60]
