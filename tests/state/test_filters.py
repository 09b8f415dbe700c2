"""A filtered list has what was asked for, and nothing else, however few there are."""

import numpy as np
import pytest

from online_models.content import CATEGORIES, code_of
from state import ranking
from state.filters import ANY, Filter
from state.lists import Wish, personal_list
from tests.agents.world import World, liked, world
from topics.catalog import Video

DAY_MS = 86_400_000
NOW_MS = 1_700_000_000_000


def catalogue(n: int = 300) -> dict[str, Video]:
    """Videos of which some say nothing of some things."""
    rng = np.random.default_rng(5)
    made = {}
    for number in range(n):
        says = rng.random(4) < 0.8
        made[f"v{number}"] = Video(
            title=f"film {number}",
            categories=tuple(f"Kind{k}" for k in rng.permutation(8)[: rng.integers(0, 4)].tolist()),
            language=("en", "no", "Pt")[number % 3] if says[0] else None,
            duration_seconds=float(rng.integers(0, 600)) if says[1] else None,
            published_ms=NOW_MS - int(rng.integers(0, 90 * DAY_MS)) if says[2] else None,
        )
    return made


VIDEOS = catalogue()


@pytest.fixture(scope="module")
def audience() -> World:
    made = world(partitions=2)
    for video_id, video in VIDEOS.items():
        made.put(video_id, video)
    rng = np.random.default_rng(6)
    for number in range(900):
        made.send(liked(f"u{number % 45}", f"v{rng.integers(300)}", number, at_ms=NOW_MS - 1_000 * (900 - number)))
    made.settle()
    return made


WANTED = [
    Filter(categories=("kind3",)),
    Filter(categories=("KIND3", "kind5", "no such kind")),
    Filter(languages=("EN", "pt")),
    Filter(min_duration_seconds=120),
    Filter(max_duration_seconds=61.0),
    Filter(min_duration_seconds=0.0),
    Filter(min_duration_seconds=120.0, max_duration_seconds=120.0),
    Filter(published_after_ms=NOW_MS - 3 * DAY_MS),
    Filter(published_after_ms=0),
    Filter(("kind1", "kind2"), ("no",), 30.0, 500.0, NOW_MS - 60 * DAY_MS),
]


def plainly(wanted: Filter, video: Video) -> bool:
    """The same, in other words."""
    length, published = video.duration_seconds or None, video.published_ms
    asked = [
        (wanted.categories, {c.lower() for c in video.categories} & {c.lower() for c in wanted.categories}),
        (wanted.languages, video.language and video.language.lower() in [each.lower() for each in wanted.languages]),
        (wanted.min_duration_seconds is not None, length and length >= (wanted.min_duration_seconds or 0)),
        (wanted.max_duration_seconds is not None, length and length <= (wanted.max_duration_seconds or 0)),
        (
            wanted.published_after_ms is not None,
            published is not None and published >= (wanted.published_after_ms or 0),
        ),
    ]
    return all(fits for is_asked, fits in asked if is_asked)


@pytest.mark.parametrize("wanted", WANTED)
def test_a_list_has_all_that_fits_and_nothing_else(audience: World, wanted: Filter) -> None:
    engine = audience.engine
    home = audience.partition_of("u3")
    everything = personal_list(engine, "u3", home, Wish(300))
    unseen = {engine.replica.ids[place.row] for place in everything.served}
    fit = {video_id for video_id, video in VIDEOS.items() if plainly(wanted, video)}
    assert 0 < len(fit) < 300
    found = personal_list(engine, "u3", home, Wish(300, wanted=wanted))
    listed = [engine.replica.ids[place.row] for place in found.served]
    assert set(listed) == fit & unseen
    assert len(set(listed)) == len(listed)
    # In the order of the whole list.
    order = [video_id for video_id in (engine.replica.ids[place.row] for place in everything.served) if video_id in fit]
    ten = [engine.replica.ids[place.row] for place in personal_list(engine, "u3", home, Wish(4, wanted=wanted)).served]
    assert ten == order[: len(ten)]
    assert len(ten) == min(4, len(order))


def test_columns_let_everything_through_that_fits(audience: World) -> None:
    engine = audience.engine
    for wanted in WANTED:
        allowed = np.ones(len(engine.replica), np.bool_)
        wanted.narrow(engine, allowed)
        fit = np.array([wanted.admits(engine, row) for row in range(len(allowed))])
        assert allowed[fit].all(), wanted
        assert (allowed & ~fit).sum() <= 10, wanted


def test_nothing_asked_is_everything(audience: World) -> None:
    assert not ANY
    assert Filter(min_duration_seconds=0.0)
    home = audience.partition_of("u5")
    plain, with_any = (
        personal_list(audience.engine, "u5", home, Wish(4)),
        personal_list(audience.engine, "u5", home, Wish(4, wanted=ANY)),
    )
    assert plain.served == with_any.served


def test_names_that_share_a_code_are_told_apart_by_the_record() -> None:
    first: dict[int, str] = {}
    pair = next(
        (first[code_of(name)], name)
        for name in (f"n{n}" for n in range(10_000))
        if first.setdefault(code_of(name), name) != name
    )
    state = world(partitions=1, exploration=1.0)
    state.put("a", Video(title="a", categories=(pair[0],), language=pair[0]))
    state.put("b", Video(title="b", categories=(pair[1],), language=pair[1]))
    state.settle()
    for wanted in (Filter(categories=pair[:1]), Filter(languages=pair[:1])):
        for n in (2, 10):
            found = personal_list(state.engine, None, -1, Wish(n, wanted=wanted))
            assert [state.engine.replica.ids[place.row] for place in found.served] == ["a"]


def test_all_of_a_videos_categories_can_be_asked_for() -> None:
    """Also those that columns have no room for."""
    state = world(partitions=1)
    many = tuple(f"c{n}" for n in range(CATEGORIES + 1))
    state.put("a", Video(title="a", categories=many))
    state.settle()
    for name in many:
        found = personal_list(state.engine, None, -1, Wish(5, wanted=Filter(categories=(name,))))
        assert len(found.served) == 1
    found = personal_list(state.engine, None, -1, Wish(5, wanted=Filter(categories=("c99",))))
    assert not found.served


def test_few_of_a_large_catalogue_are_searched_exactly(audience: World) -> None:
    """Not by the index, which finds the best of all and would find none of them."""
    engine = audience.engine
    slot = engine.users.find("u3", audience.partition_of("u3"))
    allowed = engine.allowed(slot)
    assert slot is not None
    Filter(categories=("kind3",)).narrow(engine, allowed)
    few = int(allowed.sum())
    found = ranking.find(engine, engine.context(slot), allowed, exact_below=few)
    assert len(found.rows) == few
    by_all = ranking.find(engine, engine.context(slot), allowed, exact_below=len(allowed))
    np.testing.assert_array_equal(found.rows, by_all.rows)
