import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from bench import balancer
from bench.answers import Answer, between, has_failed, summarize
from bench.balancer import Balancer
from bench.workers import Plan, problems, run
from tests.bench.servers import Handler, Server

AS_OF_MS = 1_000_000


def answered(took_ms: float = 10.0, status: int = 200, **more: object) -> Answer:
    return Answer(**{"due_ms": 0.0, "took_ms": took_ms, "status": status, "source": "owner", "age_ms": 0.0} | more)  # type: ignore[arg-type]


def test_a_request_has_failed_if_nobody_answered_it_with_a_success_in_time() -> None:
    assert not has_failed(answered())
    assert not has_failed(answered(4_999.0, passed_on=["refused", "reset"]))
    assert has_failed(answered(5_001.0)), "too late"
    assert not has_failed(answered(5_001.0, late_ms=100.0)), "it was sent late: no worker's fault"
    assert has_failed(answered(status=0)), "nobody"
    assert has_failed(answered(status=404))
    assert has_failed(answered(status=503))
    assert has_failed(answered(status=302))


def test_failures_are_counted_and_not_timed() -> None:
    found = summarize(
        [
            *(answered(10.0, age_ms=5.0) for _ in range(97)),
            answered(200.0, source="replica", by_peer=False, age_ms=4_000.0, passed_on=["refused", "503"]),
            answered(30.0, by_peer=True, age_ms=None),
            answered(6_000.0, 0, passed_on=["refused"], age_ms=None, source=""),
        ]
    )
    assert (found["requests"], found["failed"], found["retried"]) == (100, 1, 2)
    assert found["retried_because"] == {"503": 1, "refused": 2}
    assert found["source"] == {"owner": 98, "replica": 1}
    assert (found["by_peer"], found["age_unknown"]) == (1, 1)
    assert (found["p50_ms"], found["max_ms"]) == (10.0, 200.0)
    assert (found["stale_p50_ms"], found["stale_max_ms"]) == (5.0, 4_000.0)


def test_without_an_answer_there_is_no_quantile() -> None:
    found = summarize([answered(status=0)])
    assert (found["failed"], found["p50_ms"], found["stale_p99_ms"]) == (1, None, None)
    assert summarize([])["requests"] == 0


def test_requests_of_a_fault_are_those_due_meanwhile() -> None:
    answers = [answered(due_ms=float(at)) for at in range(10)]
    assert [answer.due_ms for answer in between(answers, 3.0, 6.0)] == [3.0, 4.0, 5.0]


def test_what_should_not_be_is_said() -> None:
    def found(lost: int = 0, doubled: int = 0, failed: int = 0, **owned_s: float) -> list[str]:
        faults = [{"kind": kind, "owned_s": seconds} for kind, seconds in owned_s.items()]
        return problems(
            {"recount": {"lost": lost, "doubled": doubled}, "requests": {"failed": failed}, "faults": faults}
        )

    assert found(kill=14.9, stop=1.0, broker=40.0) == []
    assert found(lost=1, doubled=2, failed=3) == ["1 events lost", "2 events doubled", "3 requests failed"]
    assert found(kill=15.0) == ["after a kill all shards were owned after 15.0 s"]


def worker(asked: Counter[str], name: str, status: Callable[[], int] = lambda: 200) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/readyz":
            return web.Response()
        asked[name] += 1
        if status() == 0:
            assert request.transport is not None
            request.transport.abort()
        headers = {"X-Answered-By": "peer"} if name == "b" else {}
        return web.json_response({"source": "owner", "as_of_ms": AS_OF_MS}, status=status() or 200, headers=headers)

    return answer


async def ask(asking: Balancer, requests: int) -> list[Answer]:
    stop, started = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(asking.run(stop, started))
    await asyncio.wait_for(started.wait(), 30)
    while len(asking.answers) < requests:
        assert not running.done()
        await asyncio.sleep(0.01)
    stop.set()
    await running
    return asking.answers


async def test_workers_are_asked_in_turn(server: Server) -> None:
    asked: Counter[str] = Counter()
    urls = [await server(worker(asked, name)) for name in "ab"]
    answers = await ask(Balancer(urls, ["/x"], 200.0), 40)
    found = summarize(answers)
    assert (found["failed"], found["retried"], found["source"]) == (0, 0, {"owner": len(answers)})
    assert abs(asked["a"] - asked["b"]) <= 1
    assert found["by_peer"] == asked["b"]
    assert found["stale_p50_ms"] > 1e12 - AS_OF_MS


async def test_what_is_broken_off_or_refused_goes_to_another_worker(server: Server) -> None:
    asked: Counter[str] = Counter()
    urls = [await server(worker(asked, "a", lambda: 0)), await server(worker(asked, "b"))]
    answers = await ask(Balancer(urls, ["/x"], 100.0), 30)
    found = summarize(answers)
    assert (found["failed"], found["retried_because"].keys()) == (0, {"reset"})
    assert 0 < found["retried"] <= asked["a"]
    assert asked["b"] == len(answers)


async def test_what_a_worker_cannot_answer_goes_to_another_and_what_is_wrong_does_not(server: Server) -> None:
    asked: Counter[str] = Counter()
    urls = [await server(worker(asked, "a", lambda: 503)), await server(worker(asked, "b", lambda: 404))]
    found = summarize(answers := await ask(Balancer(urls, ["/x"], 100.0), 20))
    assert found["failed"] == len(answers) == asked["b"]
    assert found["retried_because"] == {"503": asked["a"]}


async def test_what_is_sent_late_is_asked_all_the_same(server: Server) -> None:
    asked: Counter[str] = Counter()
    asking = Balancer([await server(worker(asked, "a"))], ["/x"], 20.0)
    stop, started = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(asking.run(stop, started))
    await asyncio.wait_for(started.wait(), 30)
    time.sleep(5.5)  # noqa: ASYNC251 - the whole process stands still
    while len(asking.answers) < 60:
        assert not running.done()
        await asyncio.sleep(0.01)
    stop.set()
    await running
    # One that was under way as it stood still may have been given up.
    late = [answer for answer in asking.answers if answer.late_ms > 5_000]
    assert late
    assert not any(has_failed(answer) for answer in late)
    assert summarize(asking.answers)["sent_late_max_ms"] > 5_000


async def test_nobody_answers_and_the_request_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balancer, "PATIENCE_S", 0.3)
    asked: Counter[str] = Counter()
    urls = [await server(worker(asked, "a", lambda: 503))]
    (answer, *_) = await ask(Balancer(urls, ["/x"], 20.0), 1)
    assert answer.status == 0
    assert has_failed(answer)
    assert answer.took_ms >= 300
    assert len(answer.passed_on) > 1


@pytest.mark.broker
@pytest.mark.timeout(180)
def test_a_worker_stops_and_comes_back_and_nobody_notices(tmp_path: Path) -> None:
    plan = Plan(workers=2, events=2_000, events_per_s=800.0, requests_per_s=20.0, faults=["stop"])
    found = run(plan, tmp_path, lambda _: None)
    assert problems(found) == []
    recount, requests = found["recount"], found["requests"]
    assert recount["events"] >= recount["acknowledged"] >= 2_000
    assert (recount["lost"], recount["doubled"]) == (0, 0)
    assert recount["duplicates"] > 0
    assert recount["dead"] > 0
    assert requests["requests"] > 30
    assert sum(requests["source"].values()) == requests["requests"]
    (fault,) = found["faults"]
    assert fault["kind"] == "stop"
    assert fault["requests"]["requests"] > 0
    assert fault["learned_s"] >= fault["owned_s"] > 0
