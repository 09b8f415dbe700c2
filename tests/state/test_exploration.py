"""What explores: the budget, the guaranteed minimum, and that neither the record nor anybody's requests can take it away."""

import numpy as np
import pytest

from infra.settings import Settings
from online_models.base import FACTORS, Context
from state.engine import NEWEST, EngineOptions
from state.exploration import (
    EXPECTED_PLAYS,
    LEAST_OFFERS,
    NOBODY,
    PROVEN_PLAYS,
    RANKED_PLAYS,
    TURN_SHARE,
    posterior,
)
from state.lists import rank, recommend
from tests.agents.world import NOW_MS, World, liked
from topics.catalog import Video
from topics.evidence import SHOWN
from topics.partitions import stable_hash

FANS, VIDEOS = 80, 20
TASTES = ("cat", "car")


def audience(share: float, seed: int = 1) -> World:
    """Eighty people of two tastes, each of whom likes twelve of their own twenty videos: all are known."""
    made = World(EngineOptions(partitions=2, max_users=5_000, max_videos=5_000, seed=seed, exploration=share))
    for taste in TASTES:
        for number in range(VIDEOS):
            made.put(f"{taste}{number}", Video(title=f"{taste} film {number}", categories=(taste,)))
    for fan in range(FANS):
        for place in range(12):
            number, taste = fan * 100 + place, TASTES[fan % 2]
            video = f"{taste}{(fan // 2 + place) % VIDEOS}"
            made.send(liked(f"{taste}{fan}", video, number, at_ms=NOW_MS - 10**8 + number * 1_000))
    made.settle()
    return made


def fan(number: int) -> str:
    return f"{TASTES[number % 2]}{number % FANS}"


def explored(made: World, user_id: str, n: int = 10) -> str | None:
    """The video in the exploring place of a list, if there is one; it must be the last."""
    places, _ = recommend(made.engine, user_id, made.partition_of(user_id), n)
    new = [place for place in places if any(why.kind == "new" for why in place.reasons)]
    assert new in ([], places[-1:])
    assert all(np.isfinite(place.score) for place in places)
    assert len({place.row for place in places}) == len(places)
    return made.engine.replica.ids[new[0].row] if new else None


def publish(made: World, name: str, taste: str = "cat") -> int:
    made.put(name, Video(title=f"{taste} film", categories=(taste,)))
    made.settle()
    return made.row(name)


def ask(made: World, user_id: str | None, forbidden: tuple[int, ...] = (), listed: tuple[int, ...] = ()) -> int | None:
    """What explores in a list for a user, None for a stranger."""
    engine = made.engine
    slot = None if user_id is None else engine.users.find(user_id, made.partition_of(user_id))
    context, allowed = engine.stranger() if slot is None else engine.context(slot), engine.allowed(slot)
    allowed[list(forbidden)] = False
    user = NOBODY if user_id is None else stable_hash(user_id)
    rows = np.array(listed, np.int32)
    return made.engine.exploration.choose(context, allowed, rows, engine.newest_rows(), engine.play_rate, user)


def test_the_default_is_that_of_the_settings() -> None:
    assert Settings.model_fields["exploration"].default == EngineOptions.exploration


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_lists_explore_within_their_budget(share: float) -> None:
    made = audience(share)
    for number in range(60):
        publish(made, f"new{number}", TASTES[number % 2])
    lists = 4_000
    found = sum(ask(made, fan(number)) is not None for number in range(lists))
    assert found == pytest.approx(share * lists, abs=4 * np.sqrt(lists * share * (1 - share)))


def test_exploring_nothing_is_ranking_alone_and_counts_nothing() -> None:
    made = audience(0.0)
    row = publish(made, "cat-new")
    assert all(explored(made, fan(number)) is None for number in range(200))
    assert made.engine.exploration.lists == made.engine.exploration.offers(row) == 0


def test_short_lists_do_not_explore() -> None:
    made = audience(1.0)
    publish(made, "cat-new")
    assert explored(made, fan(0), 4) is None
    assert made.engine.exploration.lists == 0


def test_a_list_holds_what_is_ranked_but_for_the_exploring_place() -> None:
    plain, made = audience(0.0), audience(1.0)
    publish(plain, "odd", "odd"), publish(made, "odd", "odd")
    for name in (*TASTES, "nobody"):
        user = f"{name}{TASTES.index(name)}" if name in TASTES else name
        home = made.partition_of(user)
        ranked = [place.row for place in recommend(plain.engine, user, home, 10)[0]]
        listed = [place.row for place in recommend(made.engine, user, home, 10)[0]]
        assert listed[:9] == ranked[:9]


def test_evaluation_gets_the_lists_that_are_served() -> None:
    served, ranked = audience(0.5), audience(0.5)
    for made in (served, ranked):
        publish(made, "cat-new")
        publish(made, "car-new", "car")
    for number in range(100):
        user = fan(number)
        places, _ = recommend(served.engine, user, served.partition_of(user), 10)
        engine = ranked.engine
        slot = engine.users.find(user, ranked.partition_of(user))
        assert slot is not None
        rows = rank(engine, engine.context(slot), engine.allowed(slot), 10, user)
        assert rows.tolist() == [place.row for place in places]
    assert (
        served.engine.exploration.offers(served.row("cat-new"))
        == ranked.engine.exploration.offers(ranked.row("cat-new"))
        > 0
    )


def test_equal_seeds_explore_alike_and_others_do_not() -> None:
    def run(seed: int) -> list[str | None]:
        made = audience(0.3, seed)
        for number in range(30):
            publish(made, f"new{number}", TASTES[number % 2])
        return [explored(made, fan(number)) for number in range(200)]

    first = run(1)
    assert run(1) == first
    assert run(2) != first


def test_a_new_video_is_offered_to_its_taste_first_and_to_others_in_turn_only() -> None:
    made = audience(1.0)
    row = publish(made, "cat-new")
    offered = dict.fromkeys(TASTES, 0)
    for number in range(400):
        user = fan(number)
        if ask(made, user) == row:
            offered[user[:3]] += 1
        if made.engine.exploration.offers(row) >= LEAST_OFFERS:
            break
    assert made.engine.exploration.offers(row) == LEAST_OFFERS
    assert offered["cat"] > 2 * offered["car"]


def test_every_new_video_gets_its_minimum_whatever_its_taste() -> None:
    """Nobody likes `odd` things, and there are more new videos than the draw is made from."""
    made = audience(1.0)
    for number in range(NEWEST + 50):
        made.put(f"odd{number}", Video(title="odd", categories=("odd",)))
    made.settle()
    rows = [made.row(f"odd{number}") for number in range(NEWEST + 50)]
    users = [f"person{number}" for number in range(300)]
    for number, user in enumerate(users):
        made.send(liked(user, f"cat{number % VIDEOS}", 10**6 + number))
    made.settle()
    lists = int(3 * len(rows) * LEAST_OFFERS / TURN_SHARE)
    for number in range(lists):
        ask(made, users[number % len(users)])
        if number % 1_000 == 0 and min(made.engine.exploration.offers(row) for row in rows) >= LEAST_OFFERS:
            break
    assert min(made.engine.exploration.offers(row) for row in rows) >= LEAST_OFFERS


def test_turns_go_round_whoever_asks_in_between() -> None:
    made = audience(1.0)
    rows = [publish(made, f"odd{number}", "odd") for number in range(5)]
    for number in range(300):
        ask(made, "cat0")
        ask(made, None)
        ask(made, fan(number))
        offers = [made.engine.exploration.offers(row) for row in rows]
        assert max(offers) - min(offers) <= 1
    assert min(offers) > 2


def test_who_has_liked_it_tells_of_what_taste_a_video_without_metadata_is() -> None:
    made = audience(1.0)
    made.put("bare", Video())
    made.send(liked("cat0", "bare", 10**6))
    made.settle()
    found = [sum(ask(made, fan(2 * number + other)) == made.row("bare") for number in range(1, 30)) for other in (0, 1)]
    assert found[0] > 20 > 15 > found[1]


def test_a_video_that_is_owed_offers_comes_before_one_that_does_well() -> None:
    made = audience(1.0)
    first = publish(made, "cat-first")
    for number in range(500):
        ask(made, fan(2 * number))
    made.send(*(liked(f"p{n}", "cat-first", 10**6 + n) for n in range(PROVEN_PLAYS - 1)))
    row = publish(made, "cat-second")
    found = [ask(made, fan(2 * number)) for number in range(LEAST_OFFERS)]
    assert made.engine.exploration.offers(first) >= LEAST_OFFERS
    assert found == [row] * LEAST_OFFERS


def test_one_who_asks_again_and_again_takes_no_offer_from_others() -> None:
    made = audience(1.0)
    row = publish(made, "odd-new", "odd")
    for _ in range(500):
        ask(made, "cat0")
    assert made.engine.exploration.offers(row) <= 1
    for number in range(500):
        assert ask(made, None) in (row, None), number
    assert made.engine.exploration.offers(row) <= 1, "strangers can be made up"
    for number in range(2_000):
        ask(made, fan(number))
    assert made.engine.exploration.offers(row) >= LEAST_OFFERS


def test_one_who_shows_a_video_to_themselves_does_not_end_its_minimum() -> None:
    """Going to and fro between two videos counts them as shown each time."""
    made = audience(1.0)
    row = publish(made, "cat-new")
    made.send(*(liked("bot", ("cat-new", "cat1")[n % 2], 10**6 + n, event="impression") for n in range(1_000)))
    made.settle()
    assert made.engine.replica.counts[row, SHOWN] == 500
    assert sum(ask(made, fan(2 * number)) == row for number in range(15)) > 10
    for number in range(2_000):
        ask(made, fan(number))
    assert made.engine.exploration.offers(row) >= LEAST_OFFERS


def test_a_video_that_had_its_minimum_and_is_proven_bad_explores_no_more() -> None:
    made = audience(1.0)
    row = publish(made, "cat-new")
    for number in range(2_000):
        ask(made, fan(number))
    assert made.engine.exploration.offers(row) >= LEAST_OFFERS
    shown = int(3 * EXPECTED_PLAYS / made.engine.play_rate)
    made.send(*(liked(f"p{n}", "cat-new", 10**6 + n, event="impression") for n in range(shown)))
    made.settle()
    assert made.engine.popularity.columns["plays"][row] == 0
    assert all(ask(made, fan(number)) is None for number in range(200))


def test_a_video_that_many_like_is_left_to_the_ranking() -> None:
    made = audience(1.0)
    row = publish(made, "cat-new")
    assert row in {ask(made, fan(number)) for number in range(20)}
    made.send(*(liked(f"p{n}", "cat-new", 10**6 + n) for n in range(PROVEN_PLAYS)))
    made.settle()
    assert all(ask(made, fan(2 * number + 1)) is None for number in range(100)), "owed no turns"
    assert row in {ask(made, fan(2 * number)) for number in range(20)}
    made.send(*(liked(f"q{n}", "cat-new", 2 * 10**6 + n) for n in range(RANKED_PLAYS - PROVEN_PLAYS)))
    made.settle()
    assert all(ask(made, fan(number)) is None for number in range(200))


def test_nothing_hidden_deleted_seen_or_listed_explores() -> None:
    made = audience(1.0)
    rows = [publish(made, f"cat-new{number}") for number in range(4)]
    made.put("cat-new0", Video(title="cat film", categories=("cat",), hidden=True))
    made.put("cat-new1", None)
    made.send(liked("cat0", "cat-new2", 10**6, event="dislike"))
    made.settle()
    found = {ask(made, "cat0", listed=(rows[3],)) for _ in range(200)}
    assert found == {None}
    assert {ask(made, "cat0") for _ in range(200)} == {rows[3]}
    assert {ask(made, fan(number)) for number in range(1, 200)} <= {rows[2], rows[3], None}


def test_a_deleted_video_that_comes_back_is_owed_its_minimum_again() -> None:
    made = audience(1.0)
    row = publish(made, "cat-new")
    for number in range(200):
        ask(made, fan(number))
    assert made.engine.exploration.offers(row) > 0
    made.put("cat-new", None)
    made.settle()
    assert made.engine.exploration.offers(row) == 0
    row = publish(made, "cat-new")
    assert row in {ask(made, fan(number)) for number in range(20)}


def test_what_was_shown_before_a_restart_counts_as_offered() -> None:
    made = audience(1.0)
    publish(made, "cat-new")
    publish(made, "car-new", "car")
    made.send(*(liked(f"p{n}", "cat-new", 10**6 + n, event="impression") for n in range(LEAST_OFFERS + 5)))
    made.settle()
    made.restart()
    assert made.engine.exploration.offers(made.row("cat-new")) == LEAST_OFFERS
    assert made.engine.exploration.offers(made.row("car-new")) == 0


def test_memory_is_bounded_by_the_rows() -> None:
    made = audience(1.0)
    for number in range(3_000):
        made.put(f"new{number}", Video(title="new"))
    made.settle()
    for number in range(3_000):
        ask(made, f"stranger{number}" if number % 2 else fan(number))
    exploration = made.engine.exploration
    held = exploration._users.nbytes + exploration._offers.nbytes + exploration._draws.nbytes
    assert held <= 9 * 1.5 * len(made.engine.replica) + 16_384


def test_a_site_without_anything_shown_or_liked_explores() -> None:
    made = World(EngineOptions(partitions=1, max_users=10, max_videos=100, exploration=1.0))
    for number in range(30):
        made.put(f"new{number}", Video(title="new") if number % 2 else Video())
    made.settle()
    assert made.engine.play_rate == 0.0
    assert explored(made, "nobody") is not None
    assert ask(made, None) is not None


@pytest.mark.parametrize("rate", [0.0, 1e-9, 0.3, 1.0, 5.0])
def test_posteriors_are_finite_and_grow_with_taste_and_plays(rate: float) -> None:
    cosine = np.linspace(-1, 1, 9).astype(np.float32)
    none, many = np.zeros(9), np.full(9, 1e6)
    a, b = posterior(rate, cosine, none, np.zeros(9, np.int32))
    assert np.isfinite(a).all()
    assert np.isfinite(b).all()
    assert (a > 0).all()
    assert (b > 0).all()
    assert (np.diff(a / (a + b)) >= 0).all()
    a2, b2 = posterior(rate, cosine, many, np.zeros(9, np.int32))
    assert (a2 / (a2 + b2) > 0.99).all()
    a3, b3 = posterior(rate, cosine, none, np.full(9, 10**6, np.int32))
    assert (a3 / (a3 + b3) < 0.01).all()


def test_an_empty_catalogue_explores_nothing() -> None:
    made = World(EngineOptions(partitions=1, max_users=10, max_videos=10, exploration=1.0))
    context = Context(np.empty(0, np.int32), np.zeros(FACTORS, np.float32), 0.0)
    none = np.empty(0, np.int32)
    assert made.engine.exploration.choose(context, np.zeros(0, np.bool_), none, none, 0.0, NOBODY) is None
    assert recommend(made.engine, "nobody", 0, 10)[0] == []
