"""Lists computed from an engine, without HTTP or Kafka."""

import numpy as np
import pytest

from state.engine import Engine
from state.lists import Wish, personal_list, recommend, similar, trending
from state.ranking import best, find, propose, propose_with, score_rows
from state.users import KINDS
from tests.agents.world import World, liked, world
from topics.catalog import Video

FANS, VIDEOS = 30, 12


@pytest.fixture
def two_tastes() -> World:
    """Users of two groups, each of which likes ten of its own twelve videos."""
    made = world()
    for taste in ("cat", "car"):
        for number in range(VIDEOS):
            made.put(f"{taste}{number}", Video(title=f"{taste} film {number}", categories=(taste,)))
    rng = np.random.default_rng(1)
    number = 0
    for fan in range(FANS):
        taste = ("cat", "car")[fan % 2]
        for video in rng.permutation(VIDEOS)[:10].tolist():
            number += 1
            made.send(liked(f"{taste}-fan{fan}", f"{taste}{video}", number, at_ms=1_600_000_000_000 + number * 1000))
    made.settle()
    return made


def listed(engine: Engine, made: World, user_id: str, n: int = 10) -> list[str]:
    served, _ = recommend(engine, user_id, made.partition_of(user_id), n)
    return engine.replica.ids_of(place.row for place in served)


def test_a_user_gets_what_is_left_of_their_taste_first(two_tastes: World) -> None:
    engine = two_tastes.engine
    slot = engine.users.find("cat-fan0", two_tastes.partition_of("cat-fan0"))
    assert slot is not None
    seen = set(engine.replica.ids_of(engine.users.history[slot][engine.users.history[slot] >= 0].tolist()))
    found = listed(engine, two_tastes, "cat-fan0")
    assert set(found[:2]) == {f"cat{number}" for number in range(VIDEOS)} - seen
    assert not seen & set(found)


def test_a_stranger_gets_a_list_and_leaves_no_trace(two_tastes: World) -> None:
    engine = two_tastes.engine
    before = len(engine.users), len(engine.replica)
    served, source = recommend(engine, "nobody", two_tastes.partition_of("nobody"), 10)
    assert source == "trending"
    assert len(served) == 10
    assert (len(engine.users), len(engine.replica)) == before


def test_a_session_counts_before_the_users_own_history(two_tastes: World) -> None:
    engine = two_tastes.engine
    home = two_tastes.partition_of("cat-fan0")
    own = personal_list(engine, "cat-fan0", home, Wish(6))
    asked = personal_list(engine, "cat-fan0", home, Wish(6, session=["car1", "unheard-of", "car2", "car3", "car2"]))
    rows = [two_tastes.row(video) for video in ("car2", "car3", "car1")]
    assert asked.context.history.tolist() == [*rows, *own.context.history.tolist()][:20]
    assert asked.source == own.source == "owner"
    assert not {place.row for place in asked.served} & set(rows)
    assert asked.served[0].reasons != own.served[0].reasons
    # Nothing of it stays.
    assert personal_list(engine, "cat-fan0", home, Wish(6)).served == own.served
    assert engine.replica.find("unheard-of") is None


def test_somebody_without_an_account_is_known_by_their_session_alone(two_tastes: World) -> None:
    engine = two_tastes.engine
    before = len(engine.users), len(engine.replica)
    found = personal_list(engine, None, -1, Wish(8, session=["cat1", "cat2"], exclude=["cat3", "cat4", "unheard-of"]))
    listed_ = engine.replica.ids_of(place.row for place in found.served)
    assert found.source == "session"
    assert sum(video.startswith("cat") for video in listed_) == 8, listed_
    assert not {"cat1", "cat2", "cat3", "cat4"} & set(listed_)
    assert personal_list(engine, None, -1, Wish(5, session=["unheard-of"])).source == "trending"
    two_tastes.put("cat1", None)
    two_tastes.settle()
    assert len(personal_list(engine, None, -1, Wish(5, session=["cat1", "cat2"])).context.history) == 1
    assert (len(engine.users), len(engine.replica)) == before


def test_a_like_changes_the_same_users_next_list(two_tastes: World) -> None:
    two_tastes.send(liked("fresh", "car3", 10_001))
    two_tastes.settle()
    found = listed(two_tastes.engine, two_tastes, "fresh", 5)
    assert all(video.startswith("car") for video in found)
    assert "car3" not in found


def test_a_new_video_reaches_those_who_like_its_category_and_nobody_else(two_tastes: World) -> None:
    two_tastes.put("cat-new", Video(title="cat film again", categories=("cat",)))
    two_tastes.settle()
    engine = two_tastes.engine
    assert "cat-new" in listed(engine, two_tastes, "cat-fan2")
    assert "cat-new" not in listed(engine, two_tastes, "car-fan1")


def test_hidden_videos_are_learned_and_never_served(two_tastes: World) -> None:
    two_tastes.put("car0", Video(title="car film 0", categories=("car",), hidden=True))
    two_tastes.send(liked("late", "car0", 10_002), liked("late", "car1", 10_003))
    two_tastes.settle()
    engine = two_tastes.engine
    row = two_tastes.row("car0")
    assert engine.replica.counts[row].sum() > 0
    assert engine.replica.counts.shape[1] == KINDS
    for user in ("late", "nobody", "car-fan1"):
        assert "car0" not in listed(engine, two_tastes, user, 24)
    assert row not in [place.row for place in trending(engine, 24)]
    assert row not in [place.row for place in similar(engine, two_tastes.row("car1"), 24)]


def test_similar_finds_the_same_taste_and_not_itself(two_tastes: World) -> None:
    engine = two_tastes.engine
    found = engine.replica.ids_of(place.row for place in similar(engine, two_tastes.row("cat1"), 8))
    assert found
    assert "cat1" not in found
    assert all(video.startswith("cat") for video in found)


def test_every_place_has_a_reason(two_tastes: World) -> None:
    served, source = recommend(two_tastes.engine, "car-fan1", two_tastes.partition_of("car-fan1"), 10)
    assert source == "owner"
    assert all(place.reasons for place in served)
    because = [why for place in served for why in place.reasons if why.kind == "watched_together"]
    assert because
    assert all(why.row is not None for why in because)


def test_candidates_first_gives_the_list_of_scoring_everything(two_tastes: World) -> None:
    engine = two_tastes.engine
    while engine.index.waiting:
        engine.index.refresh(engine.mf.columns["q"], engine.mf.columns["b"])
    slot = engine.users.find("car-fan1", two_tastes.partition_of("car-fan1"))
    assert slot is not None
    allowed = engine.replica.active[: len(engine.replica)].copy()
    context = engine.context(slot)
    whole = score_rows(engine, context, allowed, 8)
    assert score_rows(engine, context, allowed, 8, exact_below=0).rows.tolist() == whole.rows.tolist()
    allowed[whole.rows[0]] = False
    assert whole.rows[0] not in find(engine, context, allowed).rows


def test_a_lesson_finds_what_serving_proposes_and_only_if_the_chosen_one_is_among_it(two_tastes: World) -> None:
    engine = two_tastes.engine
    for number in range(600):
        two_tastes.put(f"other{number}", Video(title=f"other {number}"))
    two_tastes.settle()
    rejected = 0
    for user in ("car-fan1", "cat-fan0", "nobody"):
        slot = engine.users.find(user, two_tastes.partition_of(user))
        context = engine.stranger() if slot is None else engine.context(slot)
        allowed = engine.replica.active[: len(engine.replica)].copy()
        rows, _ = propose(engine, context, allowed)
        for row in range(len(engine.replica)):
            found = propose_with(engine, context, allowed, row)
            assert (found is None) == (row not in rows)
            assert found is None or found[0].tolist() == rows.tolist()
            rejected += found is None
    assert rejected > 900


def test_best_leaves_out_what_is_no_number_and_breaks_ties_by_place() -> None:
    scores = np.array([1.0, np.nan, 3.0, 3.0, -np.inf, np.inf], np.float32)
    assert best(scores, 10).tolist() == [2, 3, 0]
    assert best(scores, 1).tolist() == [2]
    assert best(np.zeros(0, np.float32), 3).tolist() == []
