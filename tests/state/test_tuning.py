"""What a request changes of how its list is made: variety, caps, boosts, rotation, exploration, pages."""

from typing import Any

import numpy as np
import pytest

from api.cursor import MAX_CURSOR, BadCursor, decode_cursor, encode_cursor
from state.exposures import ServedList
from state.expression import parse
from state.filters import Filter
from state.lists import Wish, personal_list
from state.mixing import mixed
from state.ranking import Scored
from state.tuning import PLAIN, Boost, Tuning
from tests.agents.world import NOW_MS, World, liked, world
from topics.catalog import Video


@pytest.fixture(scope="module")
def audience() -> World:
    """Two hundred videos of four kinds and ten authors; an audience that likes the first kind best."""
    made = world(partitions=2)
    for number in range(200):
        kind = ("cats", "cars", "food", "songs")[number % 4]
        made.put(
            f"v{number}",
            Video(title=f"{kind} {number}", categories=(kind,), tags=(kind, f"t{number}"), author=f"a{number % 10}"),
        )
    rng = np.random.default_rng(4)
    for number in range(1_200):
        row = int(rng.random() ** 2 * 30) * 4 if rng.random() < 0.7 else int(rng.integers(0, 160))
        made.send(liked(f"u{number % 40}", f"v{row}", number, at_ms=NOW_MS - 1_000 * (1_200 - number)))
    made.settle()
    return made


def ids(world_: World, wish: Wish, user: str | None = "u3") -> list[str]:
    """The list's videos."""
    partition = -1 if user is None else world_.partition_of(user)
    served = personal_list(world_.engine, user, partition, wish).served
    return [world_.engine.replica.ids[place.row] or "" for place in served]


def rows_of(world_: World, videos: list[str]) -> list[int]:
    """Where they are in memory."""
    return [int(row) for row in world_.engine.replica.rows_of(videos)]


def quiet(**said: Any) -> Tuning:
    """A tuning with no place that explores by chance."""
    return Tuning(explore=0.0, **said)


def kinds(videos: list[str]) -> list[int]:
    return [int(video[1:]) % 4 for video in videos]


def likeness(world_: World, videos: list[str]) -> float:
    """Mean over the list of the largest cosine with what stands above, by content."""
    rows = rows_of(world_, videos)
    vectors = world_.engine.content.columns["content"][rows].astype(float)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    among = vectors @ vectors.T
    return float(np.mean([among[place, :place].max() for place in range(1, len(rows))]))


def test_more_diversity_is_less_alike_and_none_is_the_plain_list(audience: World) -> None:
    def with_diversity(share: float) -> list[str]:
        return ids(audience, Wish(10, tuning=Tuning(diversity=share, explore=0.0)))

    plain = with_diversity(0.0)
    assert with_diversity(1e-9) == plain
    alike = [likeness(audience, with_diversity(share)) for share in (0.0, 0.5, 0.9, 1.0)]
    assert alike == sorted(alike, reverse=True)
    assert alike[-1] < 0.6 * alike[0]
    assert with_diversity(1.0)[0] == plain[0]


def test_mixing_is_maximal_marginal_relevance(audience: World) -> None:
    """Against the definition, place by place."""
    engine = audience.engine
    rng = np.random.default_rng(2)
    rows = rng.permutation(len(engine.replica))[:60].astype(np.int32)
    scores = -np.sort(-rng.normal(size=60)).astype(np.float32)
    found = mixed(engine, Scored(rows, scores), 12, Tuning(diversity=0.4))
    vectors = engine.content.columns["content"][rows].astype(float)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    relevance = (scores - scores.min()) / (scores.max() - scores.min())
    chosen: list[int] = []
    for _ in range(12):
        value = [
            -np.inf
            if i in chosen
            else 0.6 * relevance[i] - 0.4 * max((vectors[i] @ vectors[j] for j in chosen), default=0.0)
            for i in range(60)
        ]
        chosen.append(int(np.argmax(value)))
    assert found.rows.tolist() == rows[chosen].tolist()


@pytest.mark.parametrize("n", [3, 10, 60])
def test_caps_are_kept_even_if_the_list_is_shorter(audience: World, n: int) -> None:
    by_author = ids(audience, Wish(n, tuning=Tuning(max_per_author=1, explore=0.0)))
    authors = [int(video[1:]) % 10 for video in by_author]
    assert len(set(authors)) == len(authors) == min(n, 10)
    by_kind = kinds(ids(audience, Wish(n, tuning=Tuning(max_per_category=2, explore=0.0))))
    assert max(np.bincount(by_kind)) <= 2
    assert len(by_kind) == min(n, 8)


def test_what_a_cap_leaves_keeps_its_order(audience: World) -> None:
    plain = ids(audience, Wish(100, tuning=quiet()))
    capped = ids(audience, Wish(6, tuning=Tuning(max_per_category=2, explore=0.0)))
    used: dict[int, int] = {}
    expected = []
    for video in plain:
        kind = int(video[1:]) % 4
        used[kind] = used.get(kind, 0) + 1
        if used[kind] <= 2:
            expected.append(video)
    assert capped == expected[:6]


def test_boosts_multiply_odds(audience: World) -> None:
    def scores(tuning: Tuning) -> dict[int, float]:
        found = personal_list(audience.engine, "u3", audience.partition_of("u3"), Wish(150, tuning=tuning)).served
        return {place.row: place.score for place in found}

    plain = scores(PLAIN)
    food, few = parse("category == 'food'"), parse("tag in ('t7', 't11')")
    boosted = scores(Tuning(boosts=(Boost(food, 50.0), Boost(few, 0.5))))
    for row in plain.keys() & boosted.keys():
        number = int((audience.engine.replica.ids[row] or "")[1:])
        added = np.log(50.0) * (number % 4 == 2) + np.log(0.5) * (number in (7, 11))
        assert boosted[row] == pytest.approx(plain[row] + added, abs=1e-4)
    assert kinds(ids(audience, Wish(10, tuning=Tuning(boosts=(Boost(food, 1000.0),), explore=0.0)))) == [2] * 10


def test_rotation_holds_back_what_was_left_alone_and_not_what_was_not(audience: World) -> None:
    user = "u5"
    shard = audience.engine.shards[audience.partition_of(user)]
    plain = ids(audience, Wish(10, tuning=quiet()), user)
    rows = rows_of(audience, plain)
    codes = audience.engine.replica.hashes[rows]
    engaged = np.arange(10) >= 8
    shard.served.add(user.encode(), ServedList(NOW_MS, NOW_MS, codes, None, engaged))
    assert ids(audience, Wish(10, tuning=quiet()), user) == plain
    held = ids(audience, Wish(10, tuning=quiet(rotation=1.0)), user)
    assert set(held) & set(plain) == set(plain[8:])
    # It forbids nothing: where there is nothing else, it is there.
    everything = ids(audience, Wish(200, tuning=quiet(rotation=1.0)), user)
    assert set(plain[:8]) == set(everything[-8:])
    some = ids(audience, Wish(10, tuning=quiet(rotation=0.3)), user)
    assert set(held) & set(plain) <= set(some) & set(plain)
    assert ids(audience, Wish(10, tuning=quiet(rotation=1.0)), "u6") == ids(audience, Wish(10, tuning=quiet()), "u6")


def test_a_share_of_the_places_explores_on_request(audience: World) -> None:
    for n, share, places in ((10, 0.3, 3), (10, 0.0, 0), (4, 0.25, 1), (100, 1.0, 20)):
        partition = audience.partition_of("u7")
        found = personal_list(audience.engine, "u7", partition, Wish(n, tuning=Tuning(explore=share))).served
        explored = [place.explores for place in found]
        assert sum(explored) == places
        assert explored == sorted(explored)
        assert all(place.reasons[0].kind == "new" for place in found if place.explores)
        assert len({place.row for place in found}) == len(found)
    wanted = Filter(expression=parse("category == 'songs'"))
    found = personal_list(audience.engine, "u7", partition, Wish(10, wanted=wanted, tuning=Tuning(explore=0.5))).served
    assert len(found) == 10
    assert {int((audience.engine.replica.ids[place.row] or "")[1:]) % 4 for place in found} == {3}


def test_pages_continue_without_repeats_whatever_is_learned_between() -> None:
    state = world(partitions=1)
    for number in range(120):
        state.put(f"v{number}", Video(title=f"film {number}"))
    rng = np.random.default_rng(3)
    for number in range(300):
        state.send(liked(f"u{number % 15}", f"v{int(rng.random() ** 2 * 90)}", number))
    state.settle()
    shown, pages, text = None, [], None
    for page in range(6):
        found = personal_list(state.engine, "u1", 0, Wish(15, shown=shown)).served
        pages.append([state.engine.replica.ids[place.row] for place in found])
        text = encode_cursor(shown, state.engine.replica.hashes[[place.row for place in found]])
        assert text is not None
        shown = decode_cursor(text)
        for event in range(20):
            state.send(liked(f"u{event % 15}", f"v{rng.integers(120)}", 1_000 + 100 * page + event))
        state.settle()
    together = [video for page in pages for video in page]
    assert len(set(together)) == len(together) == 90


def test_an_offset_leaves_out_the_top_of_the_same_list(audience: World) -> None:
    plain = ids(audience, Wish(30, tuning=quiet()))
    assert ids(audience, Wish(10, offset=20, tuning=quiet())) == plain[20:]


def test_a_cursor_that_was_changed_is_refused() -> None:
    text = encode_cursor(None, np.arange(1, 40, dtype=np.uint64) * np.uint64(0x123456789ABCDEF))
    assert text is not None
    assert len(decode_cursor(text)) == 39
    for bad in (
        text[:-1],
        text[:-4],
        text + "AAAA",
        "B" + text[1:],
        text.swapcase(),
        "",
        "!",
        "é",
        "A" * 7_000,
        text[:30] + "=" + text[30:],
    ):
        with pytest.raises(BadCursor):
            decode_cursor(bad)


def test_a_cursor_ends_before_it_is_too_long_for_a_request() -> None:
    shown, pages = None, 0
    while (text := encode_cursor(shown, np.arange(200, dtype=np.uint64) + np.uint64(1_000 * pages))) is not None:
        assert len(text) <= MAX_CURSOR
        shown, pages = decode_cursor(text), pages + 1
    assert pages == 4
