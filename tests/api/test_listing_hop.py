"""Where the hop stands in the chain: who is asked, who logs and keeps the list, and what another worker is told."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from agents.owners import Owners
from agents.worker import create_app
from api.cache import ListCache
from api.caller import HOP_HEADER, Caller, new_hop
from api.envelope import REQUEST_ID
from api.errors import Problem
from api.hop import Hop
from api.listing import Listing
from api.peers import Peers
from api.requests import ListRequest
from infra.settings import Settings
from tests.agents.world import World, liked, world
from tests.api.counted import Counted
from tests.api.fake_worker import FakeWorker, says
from topics.catalog import Video
from topics.specs import INTERACTIONS

GROUP = "headrace.v1"
ASKED = ListRequest(user_id="u1")


class Log:
    """Takes what is logged."""

    def __init__(self) -> None:
        self.lists = 0

    def write_behind(self, _topic: str, _key: str, _value: bytes) -> None:
        self.lists += 1


class Cache(ListCache):
    """Keeps in memory."""

    def __init__(self) -> None:
        super().__init__(None, GROUP)
        self.kept: dict[str, bytes] = {}

    def put(self, user_id: str, value: bytes) -> None:
        self.kept[user_id] = value

    async def get(self, user_id: str, budget_ms: float = 0.0) -> bytes | None:  # noqa: ARG002 - ListCache's signature
        return self.kept.get(user_id)


class Worker:
    """A worker's part that answers for lists, over an engine of its own."""

    def __init__(self, folder: Path, peers: Peers, peer_url: str = "") -> None:
        state = world(partitions=4)
        for number in range(60):
            state.put(f"v{number}", Video(title=f"film {number}"))
        for number in range(300):
            state.send(liked(f"u{number % 20}", f"v{(7 * number + number // 20) % 60}", number))
        state.settle()
        self.state: World = state
        app = create_app(Settings(home=folder, partitions=4), "127.0.0.1:1")
        app.engine, app.started_once = state.engine, True
        app.as_of_ms = lambda *_: 1_700_000_000_000  # type: ignore[method-assign] # nothing runs that would know
        everywhere = {peer_url: {INTERACTIONS: [0, 1, 2, 3]}} if peer_url else {}
        self.log, self.cache = Log(), Cache()
        hop = Hop(Owners(lambda: everywhere, INTERACTIONS, "http://me"), peers, GROUP)
        self.listing = Listing(app, self.log, self.cache, hop)  # type: ignore[arg-type] # takes what a LogWriter does here

    def lose(self, user: str) -> None:
        """The user's shard goes to another worker."""
        self.state.engine.shards.pop(self.state.partition_of(user), None)
        self.state.engine.users.drop_partition(self.state.partition_of(user))

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer as the view does."""
        asked = msgspec.json.decode(await request.read(), type=ListRequest)
        request[REQUEST_ID] = "r"
        try:
            return web.Response(body=(await self.listing.answer(asked, Caller.of(request, GROUP))).body)
        except Problem as problem:
            return web.Response(status=problem.status)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.hop.HOP_S", 10.0)
    monkeypatch.setattr("api.hop.HEDGE_S", 10.0)


@pytest.fixture
async def peers() -> Any:
    asking = Peers()
    await asking.start()
    yield asking
    await asking.stop()


def hopped(value: str | None = None) -> Caller:
    request = make_mocked_request("POST", "/v1/recommend", headers={HOP_HEADER: value or new_hop(GROUP)})
    request[REQUEST_ID] = "r"
    # The mocked request's connection is not closed.
    return Caller.of(request, GROUP)._replace(request=None)


async def test_the_owner_answers_logs_and_keeps_the_list_and_whoever_asks_it_does_not(
    tmp_path: Path, peers: Peers
) -> None:
    owner = Worker(tmp_path, peers)
    async with FakeWorker(owner.serve) as there:
        asking = Worker(tmp_path, peers, there.url)
        asking.lose("u1")
        answers, hops = Counted("headrace_fallback_answers_total", "step"), Counted("headrace_hops_total", "outcome")
        ages = Counted("headrace_answer_age_seconds_count", "source")
        found = await asking.listing.answer(ASKED)
    assert found.step == "peer"
    answer = msgspec.json.decode(found.body)
    assert (answer["source"], len(answer["items"]), answer["user_id"]) == ("owner", 10, "u1")
    assert (owner.log.lists, asking.log.lists) == (1, 0)
    assert (owner.cache.kept, asking.cache.kept) == ({"u1": found.body}, {})
    assert answers() == {"peer": 1, "owner": 1}
    assert hops() == {"answered": 1}
    # How old it was is counted where it went to a client.
    assert ages() == {"owner": 1}


async def test_what_is_owned_is_not_asked_for_nor_what_is_nobodys(tmp_path: Path, peers: Peers) -> None:
    async with FakeWorker(says(b"")) as there:
        asking = Worker(tmp_path, peers, there.url)
        assert (await asking.listing.answer(ASKED)).step == "owner"
        assert (await asking.listing.answer(ListRequest(session=("v1",)))).step == "owner"
        assert there.requests == []


@pytest.mark.parametrize("status", [200, 421, 500])
async def test_the_next_of_the_chain_answers_where_the_peer_has_no_answer(
    tmp_path: Path, peers: Peers, status: int
) -> None:
    async with FakeWorker(says(b"?", status)) as there:
        asking = Worker(tmp_path, peers, there.url)
        owned = await asking.listing.answer(ASKED)
        asking.lose("u1")
        assert (await asking.listing.answer(ASKED)).step == "cache"
        asking.cache.kept.clear()
        found = await asking.listing.answer(ASKED)
        assert (found.step, len(msgspec.json.decode(found.body)["items"])) == ("replica", 10)
        assert owned.step == "owner"


async def test_a_hop_is_never_hopped_nor_answered_by_anybody_but_the_owner(tmp_path: Path, peers: Peers) -> None:
    async with FakeWorker(says(b"")) as there:
        worker = Worker(tmp_path, peers, there.url)
        await worker.listing.answer(ASKED)
        worker.lose("u1")
        assert "u1" in worker.cache.kept
        with pytest.raises(Problem) as problem:
            await worker.listing.answer(ASKED, hopped())
        assert (problem.value.status, there.requests) == (421, [])


async def test_two_workers_that_take_each_other_for_the_owner_do_not_go_round(tmp_path: Path, peers: Peers) -> None:
    async with FakeWorker(says(b"")) as one:
        second = Worker(tmp_path, peers, one.url)
        async with FakeWorker(second.serve) as two:
            first = Worker(tmp_path, peers, two.url)
            one.answer = first.serve
            first.lose("u1")
            second.lose("u1")
            found = await first.listing.answer(ASKED)
            assert (found.step, len(one.requests), len(two.requests)) == ("replica", 0, 1)


async def test_a_question_that_is_asked_twice_is_logged_once(tmp_path: Path, peers: Peers) -> None:
    owner, question = Worker(tmp_path, peers), new_hop(GROUP)
    first = await owner.listing.answer(ASKED, hopped(question))
    assert await owner.listing.answer(ASKED, hopped(question)) == first
    assert owner.log.lists == 1
    # Another question, and another under the same id, are other lists.
    other = await owner.listing.answer(ASKED, hopped())
    assert msgspec.json.decode(other.body)["recommendation_id"] != msgspec.json.decode(first.body)["recommendation_id"]
    assert (
        msgspec.json.decode((await owner.listing.answer(ListRequest(user_id="u2"), hopped(question))).body)["user_id"]
        == "u2"
    )
    assert owner.log.lists == 3


async def test_nothing_is_made_for_a_worker_that_has_given_up(tmp_path: Path, peers: Peers) -> None:
    owner = Worker(tmp_path, peers)

    class Gone(Caller):
        gone = True  # as its connection is closed

    with pytest.raises(Problem) as problem:
        await owner.listing.answer(ASKED, Gone({}, "0" * 32))
    assert (problem.value.status, owner.log.lists) == (421, 0)


@pytest.mark.parametrize("value", ["1", "", "headrace.v1", "headrace.v2 " + "0" * 32, "headrace.v1 " + "0" * 33, "é"])
def test_a_hop_of_another_group_or_of_none_is_refused(value: str) -> None:
    request = make_mocked_request("POST", "/v1/recommend", headers={HOP_HEADER: value})
    request[REQUEST_ID] = "r"
    with pytest.raises(Problem) as problem:
        Caller.of(request, GROUP)
    assert problem.value.status == 421


def test_what_another_worker_is_shown_are_keys_and_the_id() -> None:
    headers = {"Authorization": "Bearer hr_x", "X-API-Key": "k", "Cookie": "c", "X-Other": "o", "Host": "h"}
    request = make_mocked_request("GET", "/v1/recommend/u1", headers=headers)
    request[REQUEST_ID] = "request-1"
    caller = Caller.of(request, GROUP)
    assert caller.headers == {"Authorization": "Bearer hr_x", "X-API-Key": "k", "X-Request-Id": "request-1"}
    assert caller.hop is None
