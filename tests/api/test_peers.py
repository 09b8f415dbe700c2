"""Asking another worker that answers badly, late, or not at all; and the answers that are not passed on."""

import asyncio
import gzip
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web

from agents.owners import Owners
from api.breaker import FAILURES
from api.caller import HOP_HEADER, NOBODY, Caller
from api.errors import Problem
from api.hop import HEDGE_S, HOP_S, Hop
from api.peers import MAX_ANSWER_BYTES, Peers, Question
from api.requests import BoostRule, ListRequest
from api.schemas import Item, KnownUser, Reason, Recommendations
from infra.kafka_probe import free_port
from tests.api.counted import Counted
from tests.api.fake_worker import FakeWorker, Handler, says
from topics.specs import INTERACTIONS

ASKED = ListRequest(user_id="ann", n=2)
LIST = Recommendations(
    "ann", "r", "owner", 5, 7, [Item("v1", 1.5, [Reason("taste", "you like it")]), Item("v2", 0.1, [])], "next", None
)
BODY = msgspec.json.encode(LIST)
#: For tests in which nothing is late, on a machine that may be.
PATIENT = {"within_s": 10.0, "hedge_s": 10.0}


def question(**changed: Any) -> Question[bytes]:
    return Question("POST", "/v1/recommend", changed.pop("headers", {}), b"{}", bytes, **{**PATIENT, **changed})


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.hop.HOP_S", 10.0)
    monkeypatch.setattr("api.hop.HEDGE_S", 10.0)


@pytest.fixture
async def peers() -> AsyncIterator[Peers]:
    asking = Peers()
    await asking.start()
    yield asking
    await asking.stop()


def hop(peers: Peers, url: str) -> Hop:
    return Hop(Owners(lambda: {url: {INTERACTIONS: [0]}}, INTERACTIONS, "http://me"), peers, "headrace.v1")


async def outcome(peers: Peers, url: str, asked: ListRequest = ASKED) -> tuple[str, Recommendations | None]:
    counted = Counted("headrace_hops_total", "outcome")
    found = await hop(peers, url).list_for(asked, 0, NOBODY)
    [(name, _)] = counted().items()
    return name, found


async def test_the_answer_of_the_owner_is_passed_on(peers: Peers) -> None:
    async with FakeWorker(says(BODY)) as owner:
        assert await outcome(peers, owner.url) == ("answered", LIST)
        assert await hop(peers, owner.url).list_for(ASKED, 1, NOBODY) is None  # nobody owns that


async def test_it_is_asked_for_all_that_was_asked_and_who_asks(peers: Peers) -> None:
    asked = ListRequest(
        user_id="ann", n=2, exclude=("v9",), session=("v8",), categories=("film",), filter="duration < 600",
        boosts=(BoostRule("age_days < 7", 2.0),), diversity=0.1, max_per_author=2, explore=0.0, scenario="home", min_offset=3,
        wait_ms=20,
    )  # fmt: skip
    async with FakeWorker(says(BODY)) as owner:
        caller = Caller({"Authorization": "Bearer hr_x", "X-Request-Id": "request-1"})
        assert await hop(peers, owner.url).list_for(asked, 0, caller) == LIST
        await hop(peers, owner.url).list_for(asked, 0, caller)
    first, second = owner.requests
    assert (first.method, first.path) == ("POST", "/v1/recommend")
    # A scenario's fields are in the request already.
    assert msgspec.json.decode(owner.bodies[0], type=ListRequest) == msgspec.structs.replace(asked, scenario=None)
    assert first.headers["Authorization"] == "Bearer hr_x"
    assert first.headers["X-Request-Id"] == "request-1"
    assert first.headers[HOP_HEADER].startswith("headrace.v1 ")
    assert first.headers[HOP_HEADER] != second.headers[HOP_HEADER]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (says(b"<html>", 200), "failed"),
        (says(b"", 200), "failed"),
        (says(b'{"user_id":"ann"}', 200), "failed"),
        (says(BODY.replace(b'"ann"', b'"bob"'), 200), "failed"),  # of somebody else
        (says(msgspec.json.encode(msgspec.structs.replace(LIST, items=LIST.items * 2))), "failed"),  # longer than asked
        (says(BODY + b" " * MAX_ANSWER_BYTES, 200), "failed"),
        (says(gzip.compress(BODY, mtime=0), 200, headers={"Content-Encoding": "gzip"}), "failed"),
        (says(b"", 204), "failed"),
        (says(b"", 302, headers={"Location": "/elsewhere"}), "failed"),
        (says(BODY, 500), "failed"),
        (says(BODY, 503), "failed"),
        (says(BODY, 400), "refused"),
        (says(BODY, 401), "refused"),
        (says(BODY, 429), "refused"),
        (says(BODY, 421), "misdirected"),
    ],
)
async def test_what_is_no_answer_is_passed_over(peers: Peers, answer: Handler, expected: str) -> None:
    async with FakeWorker(answer) as owner:
        assert await outcome(peers, owner.url) == (expected, None)
        assert {request.path for request in owner.requests} == {"/v1/recommend"}
        # What failed is tried once more, what was declined is not.
        assert len(owner.requests) == (2 if expected == "failed" else 1)


async def test_a_stream_without_an_end_is_not_read_to_its_end(peers: Peers) -> None:
    sent = 0

    async def pour(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 65_536)
            sent += 65_536

    async with FakeWorker(pour) as owner:
        assert (await peers.ask(owner.url, question())).outcome == "failed"
    assert sent < 100 * MAX_ANSWER_BYTES


async def test_who_does_not_answer_costs_the_budget_and_soon_nothing(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.hop.HOP_S", HOP_S)
    monkeypatch.setattr("api.hop.HEDGE_S", HEDGE_S)
    async with FakeWorker(says(BODY, after_s=60)) as owner:
        began = time.monotonic()
        for _ in range(FAILURES):
            assert await outcome(peers, owner.url) == ("timeout", None)
        assert time.monotonic() - began < 30
        asked = len(owner.requests)
        assert FAILURES < asked <= 2 * FAILURES  # each is hedged, if the machine lets it come so far
        assert await outcome(peers, owner.url) == ("open", None)
        assert len(owner.requests) == asked
        # It is back: a trial finds out.
        owner.answer = says(BODY)
        monkeypatch.setattr("api.hop.HOP_S", 10.0)
        while (await outcome(peers, owner.url))[0] == "open":
            assert time.monotonic() - began < 60
            await asyncio.sleep(0.02)
        assert await outcome(peers, owner.url) == ("answered", LIST)


async def test_nobody_there_opens_the_breaker_of_that_peer_alone(peers: Peers) -> None:
    nobody = f"http://127.0.0.1:{free_port('127.0.0.1')}"
    for _ in range(FAILURES):
        assert (await peers.ask(nobody, question())).outcome == "failed"
    assert (await peers.ask(nobody, question())).outcome == "open"
    async with FakeWorker(says(BODY)) as owner:
        assert await outcome(peers, owner.url) == ("answered", LIST)


async def test_who_declines_is_there(peers: Peers) -> None:
    async with FakeWorker(says(b"", 421)) as owner:
        for _ in range(3 * FAILURES):
            assert (await peers.ask(owner.url, question())).outcome == "misdirected"


async def test_a_lost_request_is_asked_again_as_the_same_question(peers: Peers) -> None:
    async def lose_the_first(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60 if len(owner.requests) == 1 else 0)
        return web.Response(body=BODY)

    async with FakeWorker(lose_the_first) as owner:
        patient = question(hedge_s=0.02, headers={HOP_HEADER: "g 1"})
        assert (await peers.ask(owner.url, patient)).answer == BODY
        assert [request.headers[HOP_HEADER] for request in owner.requests] == ["g 1", "g 1"]


async def test_hops_under_way_are_bounded_and_those_that_wait_leave_room() -> None:
    peers = Peers(max_hops=4)
    assert (await peers.ask("http://127.0.0.1:1", question())).outcome == "busy"  # not started
    await peers.start()
    release = asyncio.Event()

    async def wait(_: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.Response(body=BODY)

    async with FakeWorker(wait) as owner:
        waiting = [asyncio.create_task(peers.ask(owner.url, question(waits=True))) for _ in range(4)]
        others = [asyncio.create_task(peers.ask(owner.url, question())) for _ in range(4)]
        await asyncio.sleep(0.1)
        release.set()
        assert [(await task).outcome for task in waiting] == ["answered"] * 2 + ["busy"] * 2
        assert [(await task).outcome for task in others] == ["answered"] * 2 + ["busy"] * 2
        assert (await peers.ask(owner.url, question())).outcome == "answered"
    await peers.stop()


async def test_a_user_is_read_too_and_one_whom_the_owner_does_not_know_is_not_found(peers: Peers) -> None:
    known = KnownUser("a/b ü", 0, 1, 2, None, [], {"like": 1}, 3, [], [], 1, {}, {})
    async with FakeWorker(says(msgspec.json.encode(known))) as owner:
        asking = hop(peers, owner.url)
        assert await asking.known_user("a/b ü", 0, NOBODY) == known
        assert owner.requests[0].raw_path == "/v1/users/a%2Fb%20%C3%BC"
        assert await asking.known_user("bob", 0, NOBODY) is None
        owner.answer = says(b"", 404)
        with pytest.raises(Problem) as problem:
            await asking.known_user("bob", 0, NOBODY)
        assert problem.value.status == 404
