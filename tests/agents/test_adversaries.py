"""Those who would bend what others see, and logs that nobody expects: bounded influence, finite numbers."""

import numpy as np
import pytest

from cli.recount import Recount
from state.exploration import EXPLORATION
from state.lists import recommend
from state.users import HOUR_MS, HOURLY_MAX
from tests.agents.test_recount import check
from tests.agents.world import NOW_MS, World, liked, world
from topics.catalog import Video
from topics.interactions import Interaction

TASTES = ("cat", "car")
VIDEOS = 20


def audience(
    partitions: int = 2, max_users: int = 20_000, max_videos: int = 5_000, exploration: float = EXPLORATION
) -> World:
    """Forty people of two tastes, each of whom likes twelve of their own twenty videos."""
    state = world(partitions, max_users, max_videos, exploration)
    for taste in TASTES:
        for number in range(VIDEOS):
            state.put(f"{taste}{number}", Video(title=f"{taste} film {number}", categories=(taste,)))
    rng = np.random.default_rng(1)
    for fan in range(40):
        taste = TASTES[fan % 2]
        for place, video in enumerate(rng.permutation(VIDEOS)[:12].tolist()):
            number = fan * 100 + place
            state.send(liked(f"{taste}-fan{fan}", f"{taste}{video}", number, at_ms=NOW_MS - 10**9 + number * 1_000))
    state.settle()
    return state


def listed(state: World, user_id: str, n: int = 8) -> list[str]:
    places, _ = recommend(state.engine, user_id, state.partition_of(user_id), n)
    assert all(np.isfinite(place.score) for place in places)
    return state.engine.replica.ids_of(place.row for place in places)


def is_sound(state: World) -> None:
    """No number of any model is broken."""
    engine = state.engine
    for model in engine.models:
        for name, column in model.columns.items():
            if column.dtype.kind == "f":
                assert np.isfinite(column[: len(engine.replica)]).all(), f"{model.name}.{name}"
    assert np.isfinite(engine.users.p).all()
    assert all(np.isfinite(engine.ranker.part(partition)).all() for partition in state.partitions)


def test_a_bot_counts_as_one_busy_person() -> None:
    """It likes thousands of videos within an hour; what it does beyond the bound is its own."""
    state = audience()
    total = 3 * HOURLY_MAX
    bot = [liked("bot", f"spam{n}", 10**6 + n, at_ms=NOW_MS - HOUR_MS + n) for n in range(total)]
    state.send(*bot)
    state.settle()
    plays = state.engine.popularity.columns["plays"]
    counted = sum(plays[state.row(f"spam{n}")] for n in range(total))
    assert counted == HOURLY_MAX
    assert state.totals()["damped"] == total - HOURLY_MAX
    assert state.totals()["learned"] == 40 * 12 + total
    is_sound(state)
    for user in ("cat-fan0", "car-fan1", "cat-fan2"):
        taste = user[:3]
        assert sum(video.startswith(taste) for video in listed(state, user)[:6]) >= 5, listed(state, user)


def test_a_bot_gains_nothing_by_times_in_the_past() -> None:
    state = audience()
    hours = [(n * 7_919) % 1_000 for n in range(2 * HOURLY_MAX)]
    state.send(liked("bot", "spam", 10**6, at_ms=NOW_MS))
    state.send(*(liked("bot", f"spam{n}", 10**6 + 1 + n, at_ms=NOW_MS - h * HOUR_MS) for n, h in enumerate(hours)))
    state.settle()
    assert state.totals()["damped"] == HOURLY_MAX + 1


def test_a_bot_that_comes_back_through_the_store_goes_on_where_it_was() -> None:
    state = audience(partitions=1)
    first = [liked("bot", f"spam{n}", 10**6 + n, at_ms=NOW_MS) for n in range(HOURLY_MAX - 1)]
    then = [liked("bot", f"more{n}", 2 * 10**6 + n, at_ms=NOW_MS + 1) for n in range(3)]
    state.send(*first)
    state.settle()
    state.restart()
    state.send(*then)
    state.settle()
    assert state.totals()["damped"] == 2
    state.send(liked("bot", "later", 3 * 10**6, at_ms=NOW_MS + HOUR_MS // 7))
    state.settle()
    assert state.totals()["damped"] == 3


def test_the_recount_knows_what_was_damped() -> None:
    state = world(2, max_users=100, max_videos=5_000)
    events = [liked("bot", f"spam{n}", n, at_ms=NOW_MS - HOUR_MS + n) for n in range(HOURLY_MAX + 50)]
    state.send(*events)
    state.settle()
    recount = Recount(events)
    assert recount.damped == state.totals()["damped"] == 50
    plays = state.engine.popularity.columns["plays"]
    assert {f"spam{n}": plays[state.row(f"spam{n}")] for n in range(HOURLY_MAX + 50)} == {
        f"spam{n}": recount.plays[f"spam{n}"] for n in range(HOURLY_MAX + 50)
    }
    assert plays.sum() == HOURLY_MAX


def test_a_crowd_that_likes_one_video_takes_one_place_and_no_more() -> None:
    state = audience()
    state.put("pushed", Video(title="pushed", categories=("spam",)))
    state.send(*(liked(f"crowd{n}", "pushed", 10**6 + n, at_ms=NOW_MS - 10**6 + n) for n in range(10_000)))
    state.settle()
    is_sound(state)
    assert state.engine.popularity.columns["plays"][state.row("pushed")] == 10_000
    for user in ("cat-fan0", "car-fan1"):
        found = listed(state, user)
        assert len(set(found)) == len(found)
        rest = [video for video in found if video != "pushed"]
        assert sum(video.startswith(user[:3]) for video in rest[:5]) >= 4, found


@pytest.mark.parametrize(
    "name",
    [
        "\u202egnp.exe",
        "' OR 1=1 --",
        "../../etc/passwd",
        "\u0000",
        "💥" * 32,
        "a" * 128,
        "!ranker",
        "!cut",
        "i:x",
        "NaN",
    ],
)
def test_adversarial_ids_are_ids_like_any_other(name: str) -> None:
    state = audience()
    before = listed(state, "cat-fan0")
    state.put(name, Video(title="x", categories=("odd",)))
    state.send(liked(name, name, 10**6), liked(name, "cat1", 10**6 + 1))
    state.settle()
    assert state.totals().get("dead", 0) == 0
    slot = state.engine.users.find(name, state.partition_of(name))
    assert slot is not None
    assert state.engine.users.counts[slot].sum() == 2
    state.restart()
    assert name in {state.engine.replica.ids[row] for row in range(len(state.engine.replica))}
    assert set(before) & set(listed(state, "cat-fan0"))
    is_sound(state)


def test_somebody_who_dislikes_everything_gets_a_list_and_teaches_no_taste() -> None:
    state = audience()
    numbers = range(2 * VIDEOS - 6)
    videos = [f"{taste}{n}" for n in range(VIDEOS) for taste in TASTES]
    state.send(*(liked("grump", videos[n], 10**6 + n, event="dislike") for n in numbers))
    state.send(*(liked("skipper", videos[n], 2 * 10**6 + n, event="skip") for n in numbers))
    state.settle()
    is_sound(state)
    assert not set(listed(state, "grump")) & set(videos[: len(numbers)])
    assert listed(state, "skipper")
    slot = state.engine.users.find("grump", state.partition_of("grump"))
    assert slot is not None
    assert not state.engine.users.p[slot].any()
    assert (state.engine.users.history[slot] == -1).all()


def test_a_dislike_hurts_the_video_and_not_the_taste() -> None:
    state = audience()
    state.send(*(liked("ann", f"cat{n}", 10**6 + n, at_ms=NOW_MS - 10_000 + n) for n in range(6)))
    state.send(liked("ann", "cat7", 10**6 + 50, event="dislike", at_ms=NOW_MS))
    state.settle()
    found = listed(state, "ann")
    assert "cat7" not in found
    assert sum(video.startswith("cat") for video in found[:6]) >= 5, found


def test_time_that_runs_backwards_leaves_everything_finite_and_counted() -> None:
    state = world(2)
    events = [liked(f"user{n % 9}", f"video{n % 31}", n, at_ms=NOW_MS - n * 86_400_000) for n in range(500)]
    state.send(*events)
    state.settle()
    is_sound(state)
    check(state, events)
    assert listed(state, "somebody")


def test_a_video_whose_category_changes_is_found_by_its_new_audience() -> None:
    """Each list explores: the exploring place is for those of its taste, but for turns."""
    state = audience(exploration=1.0)

    def found_by(user: str) -> int:
        return sum("turncoat" in listed(state, user) for _ in range(40))

    state.put("turncoat", Video(title="cat film", categories=("cat",)))
    state.settle()
    assert found_by("cat-fan0") == 40
    assert 0 < found_by("car-fan1") < 20
    state.put("turncoat", Video(title="car film", categories=("car",)))
    state.settle()
    assert found_by("car-fan1") == 40
    assert 0 < found_by("cat-fan0") < 20
    is_sound(state)


def test_numbers_at_the_edge_of_what_is_accepted_stay_finite() -> None:
    state = audience()
    state.put("endless", Video(title="x", duration_seconds=1e308, categories=tuple(f"c{n}" for n in range(64))))
    state.send(
        Interaction("w1", "ann", "endless", "watch", 0, 1e308, 1e308),
        Interaction("w2", "ann", "cat1", "watch", NOW_MS, 0.0, 1e-300),
        liked("ann", "endless", 3, at_ms=0),
    )
    state.settle()
    is_sound(state)
    assert listed(state, "ann")
