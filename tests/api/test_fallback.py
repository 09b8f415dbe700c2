"""A chain of steps: who answers, and what a step that does not costs."""

import asyncio
import time

import pytest
from structlog.testing import capture_logs

from api import fallback
from api.errors import Problem, not_found
from api.fallback import Answered, Step, first_answer
from infra import metrics
from tests.api.counted import Counted


class Calls(list[str]):
    """Steps in the order in which they were asked."""

    def step(
        self, name: str, answer: str | Exception | None, waits_s: float = 0.0, budget_ms: float = 50
    ) -> Step[str, str]:
        async def ask(request: str) -> str | None:
            self.append(f"{name} {request}")
            if waits_s:
                await asyncio.sleep(waits_s)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return Step(name, budget_ms, ask)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    monkeypatch.setattr(fallback, "_said", {})
    return Calls()


def answers() -> Counted:
    return Counted("headrace_fallback_answers_total", "step")


def passed(step: str) -> dict[str, float]:
    """Why the step has had no answer, in this process; its name is the test's own."""
    found = {}
    for reason in ("empty", "timeout", "error"):
        value = metrics.REGISTRY.get_sample_value("headrace_fallback_passed_total", {"step": step, "reason": reason})
        if value:
            found[reason] = value
    return found


async def test_the_first_that_has_an_answer_gives_it_and_nobody_is_asked_after(calls: Calls) -> None:
    counted = answers()
    steps = [calls.step("none1", None), calls.step("has1", "list"), calls.step("after1", "other")]
    assert await first_answer(steps, "u1") == Answered("has1", "list")
    assert calls == ["none1 u1", "has1 u1"]
    assert counted() == {"has1": 1}
    assert passed("none1") == {"empty": 1}
    assert metrics.REGISTRY.get_sample_value("headrace_fallback_seconds_count", {"step": "none1"}) == 1


async def test_an_empty_answer_is_one(calls: Calls) -> None:
    assert await first_answer([calls.step("has2", ""), calls.step("after2", "other")], "u1") == Answered("has2", "")


async def test_nobody_has_one(calls: Calls) -> None:
    counted = answers()
    assert await first_answer([calls.step("none3", None)], "u1") is None
    assert counted() == {"none": 1}


async def test_a_step_costs_its_budget_at_most(calls: Calls) -> None:
    steps = [calls.step("late4", "x", waits_s=5, budget_ms=20), calls.step("has4", "list", waits_s=0.001)]
    began = time.monotonic()
    assert await first_answer(steps, "u1") == Answered("has4", "list")
    assert 0.02 <= time.monotonic() - began < 0.2
    assert passed("late4") == {"timeout": 1}
    seconds = metrics.REGISTRY.get_sample_value("headrace_fallback_seconds_sum", {"step": "late4"})
    assert seconds is not None
    assert 0.02 <= seconds < 0.2


async def test_a_step_that_fails_is_counted_each_time_and_said_once(calls: Calls) -> None:
    steps = [calls.step("fails5", ZeroDivisionError("no")), calls.step("has5", "list")]
    with capture_logs() as said:
        for _ in range(10):
            assert await first_answer(steps, "u1") == Answered("has5", "list")
    assert passed("fails5") == {"error": 10}
    assert [(line["step"], repr(line["exc_info"])) for line in said] == [("fails5", "ZeroDivisionError('no')")]


async def test_what_the_client_did_wrong_ends_the_chain(calls: Calls) -> None:
    steps = [calls.step("wrong6", not_found("nothing")), calls.step("after6", "list")]
    with pytest.raises(Problem, match="nothing"):
        await first_answer(steps, "u1")
    assert calls == ["wrong6 u1"]


async def test_an_answer_that_took_long_to_compute_is_used_and_counted(calls: Calls) -> None:
    async def compute(_: str) -> str:
        time.sleep(0.02)  # noqa: ASYNC251 - as a ranking does
        return "list"

    assert await first_answer([Step("slow7", 1, compute), calls.step("after7", "x")], "u1") == Answered("slow7", "list")
    assert metrics.REGISTRY.get_sample_value("headrace_fallback_overruns_total", {"step": "slow7"}) == 1


async def test_a_caller_who_goes_away_is_not_answered_by_the_next_step(calls: Calls) -> None:
    steps = [calls.step("waits8", "x", waits_s=5, budget_ms=5_000), calls.step("after8", "list")]
    task = asyncio.create_task(first_answer(steps, "u1"))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert calls == ["waits8 u1"]
