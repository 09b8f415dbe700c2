"""Who answers for a list: live state, the last list in Redis, or the videos alone; and nobody's absence is the client's problem."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from agents.worker import create_app
from api.cache import ListCache
from api.errors import Problem
from api.listing import Listing
from api.requests import ListRequest
from infra.settings import Settings
from state.experiment import Arm, Experiment
from tests.agents.world import World, liked, world
from tests.api.redis_server import RedisServer
from topics.catalog import Video

USERS = [f"u{number}" for number in range(20)]


class Log:
    """Takes what is logged."""

    def __init__(self) -> None:
        self.lists = 0

    def write_behind(self, _topic: str, _key: str, _value: bytes) -> None:
        self.lists += 1


@pytest.fixture
def audience() -> World:
    state = world(partitions=4)
    for number in range(60):
        state.put(f"v{number}", Video(title=f"film {number}", categories=("film" if number % 2 else "clip",)))
    for number in range(300):
        state.send(liked(USERS[number % 20], f"v{(7 * number + number // 20) % 60}", number))
    state.settle()
    return state


@pytest.fixture
async def cache(client: Redis) -> AsyncIterator[ListCache]:
    lists = ListCache(client, "headrace:v1")
    await lists.start()
    yield lists
    await lists.stop()


def listing(state: World, folder: Path, cache: ListCache) -> tuple[Listing, Log]:
    """Over the world's engine, as a worker has it that is ready."""
    app = create_app(Settings(home=folder, partitions=4), "127.0.0.1:1")
    app.engine, app.started_once = state.engine, True
    log = Log()
    return Listing(app, log, cache), log  # type: ignore[arg-type] # takes what a LogWriter does here


async def ask(lists: Listing, user_id: str, **asked: Any) -> dict[str, Any]:
    answer = msgspec.json.decode((await lists.answer(ListRequest(user_id=user_id, **asked))).body)
    assert isinstance(answer, dict)
    return answer


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["video_id"] for item in answer["items"]]


async def stored(server: RedisServer, users: int) -> None:
    """Wait until Redis has the lists of so many users."""
    for _ in range(250):
        if server.direct.dbsize() == users:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{server.direct.dbsize()} of {users} lists are in Redis")


def lose(state: World, user: str) -> None:
    """The user's shard goes to another worker."""
    state.engine.shards.pop(state.partition_of(user), None)
    state.engine.users.drop_partition(state.partition_of(user))


async def test_the_last_list_answers_for_an_owner_who_is_not_here(
    audience: World, tmp_path: Path, cache: ListCache, server: RedisServer
) -> None:
    lists, log = listing(audience, tmp_path, cache)
    owned = await ask(lists, "u1", explore=None)
    assert owned["source"] == "owner"
    await stored(server, 1)
    lose(audience, "u1")
    cached = await ask(lists, "u1")
    assert (cached["source"], ids(cached)) == ("cache", ids(owned))
    assert (cached["as_of_ms"], cached["offset"]) == (owned["as_of_ms"], owned["offset"])
    assert cached["recommendation_id"] != owned["recommendation_id"]
    assert ids(await ask(lists, "u1", n=3)) == ids(owned)[:3]
    assert (await ask(lists, "u2"))["source"] in ("owner", "replica")
    assert log.lists == 1 + (audience.partition_of("u2") != audience.partition_of("u1"))


async def test_what_may_not_be_listed_any_more_is_not(
    audience: World, tmp_path: Path, cache: ListCache, server: RedisServer
) -> None:
    lists, _ = listing(audience, tmp_path, cache)
    owned = ids(await ask(lists, "u1", n=40))
    await stored(server, 1)
    lose(audience, "u1")
    for video in owned[:3]:
        audience.engine.unpublish(video)
    expected = [video for video in owned[3:] if video != owned[4]]
    assert ids(await ask(lists, "u1", exclude=(owned[4],))) == expected[:10]
    films = [video for video in owned[3:] if int(video[1:]) % 2]
    filtered = await ask(lists, "u1", n=5, categories=("film",))
    assert (filtered["source"], ids(filtered)) == ("cache", films[:5])
    # Too few are left, or a page or a session is asked for: then it is made from what is here.
    for asked in ({"n": 39}, {"session": ("v1",)}, {"offset": 2}, {"filter": "tag == 'none'"}):
        assert (await ask(lists, "u1", **asked))["source"] == "replica", asked


@pytest.mark.parametrize(
    "asked", [{"n": 5}, {"diversity": 0.5}, {"exclude": ("v1",)}, {"session": ("v1",)}, {"offset": 3}]
)
async def test_only_plain_lists_are_kept(
    audience: World, tmp_path: Path, cache: ListCache, server: RedisServer, asked: dict[str, Any]
) -> None:
    lists, _ = listing(audience, tmp_path, cache)
    await ask(lists, "u1", **asked)
    await ask(lists, "u2")
    await stored(server, 1)
    lose(audience, "u1")
    assert (await ask(lists, "u1"))["source"] == "replica"


async def test_what_an_arm_asks_for_is_plain_for_its_users(
    audience: World, tmp_path: Path, cache: ListCache, server: RedisServer
) -> None:
    arms = (Arm("control", 1.0), Arm("mixed", 1.0, {"diversity": 0.5, "categories": ("film",)}))
    experiment = Experiment("mix", "salt", arms)
    audience.engine.options = replace(audience.engine.options, experiment=experiment)
    lists, _ = listing(audience, tmp_path, cache)
    users = [next(user for user in USERS if experiment.arm_of(user) is arm) for arm in arms]
    for number, (user, arm) in enumerate(zip(users, arms, strict=True), 1):
        owned = await ask(lists, user, **arm.preset)
        assert owned["arm"] == arm.name
        await stored(server, number)
    for user, arm in zip(users, arms, strict=True):
        lose(audience, user)
        cached = await ask(lists, user, **arm.preset)
        assert (cached["source"], cached["arm"]) == ("cache", arm.name)


async def test_while_state_is_recovered_the_last_list_answers_and_nobody_else(
    audience: World, tmp_path: Path, cache: ListCache, server: RedisServer
) -> None:
    lists, _ = listing(audience, tmp_path, cache)
    owned = ids(await ask(lists, "u1"))
    await stored(server, 1)
    starting, _ = listing(world(partitions=4), tmp_path, cache)
    starting._app.started_once = False
    assert ids(await ask(starting, "u1")) == owned
    for refused in ({"user_id": "u2"}, {"user_id": None}, {"user_id": "u1", "cursor": None, "offset": 1}):
        with pytest.raises(Problem) as problem:
            await starting.answer(ListRequest(**refused))
        assert problem.value.status == 503
        assert problem.value.headers["Retry-After"]


async def test_an_erased_users_list_is_not_kept(
    audience: World, tmp_path: Path, cache: ListCache, server: RedisServer
) -> None:
    lists, _ = listing(audience, tmp_path, cache)
    await ask(lists, "u1")
    await stored(server, 1)
    await lists.forget("u1")
    lose(audience, "u1")
    assert (await ask(lists, "u1"))["source"] == "replica"
    assert server.direct.dbsize() == 0


async def test_redis_killed_under_load_fails_no_request_and_comes_back(
    audience: World, tmp_path: Path, cache: ListCache, server: RedisServer
) -> None:
    """Users of two kinds: those whose owner is here notice nothing; the others get another source, and the first one again later."""
    lists, _ = listing(audience, tmp_path, cache)
    for user in USERS:
        await ask(lists, user)
    await stored(server, len(USERS))
    lose(audience, "u1")
    gone = [user for user in USERS if audience.partition_of(user) == audience.partition_of("u1")]
    assert 0 < len(gone) < len(USERS)
    sources: dict[str, Counter[str]] = {}

    async def load(phase: str, requests: int) -> None:
        async def one(number: int) -> None:
            user = USERS[number % len(USERS)]
            answer = await ask(lists, user)
            assert len(answer["items"]) == 10
            assert (answer["source"] == "owner") == (user not in gone)
            sources.setdefault(phase, Counter())[answer["source"]] += 1

        for first in range(0, requests, 20):
            await asyncio.gather(*(one(first + number) for number in range(20)))
            await asyncio.sleep(0.005)

    await load("there", 200)
    # A busy machine may let an answer of Redis come too late; most are in time.
    assert sources["there"]["cache"] > sources["there"]["replica"]
    assert set(sources["there"]) - {"replica"} == {"owner", "cache"}
    during = asyncio.create_task(load("killed", 400))
    await asyncio.sleep(0.02)
    server.kill()
    await during
    assert sources["killed"]["replica"] > 0
    await load("away", 200)
    assert set(sources["away"]) == {"owner", "replica"}
    server.start()
    for user in gone:
        # Nothing of the old server is there: another worker, their owner now, writes them anew.
        cache.put(
            user,
            msgspec.json.encode(
                msgspec.json.decode((await lists.answer(ListRequest(user_id=user))).body) | {"source": "owner"}
            ),
        )
    for _ in range(300):
        await load("back", 20)
        if sources["back"]["cache"] >= len(gone):
            break
        await asyncio.sleep(0.05)
    assert sources["back"]["cache"] >= len(gone)
