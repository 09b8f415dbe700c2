"""Who is asked for an answer, one after the other, until somebody has one.

The chain is a list of steps that reads as what happens. A request flows in; the first answer and the name of its step flow out. Always
holds: a step that fails, is late or has nothing costs time, and nobody's request; only `Problem` (what the client did wrong) and
cancellation end the chain.

What a budget means depends on the step. Of one that waits (Redis, another worker) it is a time-out, as `api.budget` has it: one more
budget where the loop was held meanwhile. One that computes (the owner's ranking, what is trending) cannot be interrupted, for it does
not give the loop back, and an answer that is there is not thrown away because it was slow: it is used, and counted as an overrun. Its
budget is what it should take. The chain as a whole so takes at most twice the budgets of the steps that wait, and what the others
compute. A step that waits with a budget of its own (`ListCache.get`) should have the shorter one.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import structlog

from api.budget import within
from api.errors import Problem
from infra import metrics

log = structlog.get_logger(__name__)
Request = TypeVar("Request")
Answer = TypeVar("Answer")

#: A step that fails, fails for many requests: between two lines of the log about it.
SAY_AGAIN_S = 30.0
_said: dict[str, float] = {}


class Step(NamedTuple, Generic[Request, Answer]):
    """Somebody to ask.

    Attributes
    ----------
    name : in metrics, logs and, as a rule, the answer's `source`
    budget_ms : see above
    ask : returns an answer, or None if it has none
    """

    name: str
    budget_ms: float
    ask: Callable[[Request], Awaitable[Answer | None]]


class Answered(NamedTuple, Generic[Answer]):
    """An answer and the name of the step that gave it."""

    step: str
    answer: Answer


async def first_answer(steps: Sequence[Step[Request, Answer]], request: Request) -> Answered[Answer] | None:
    """Ask one step after the other; None if none had an answer.

    Raises
    ------
    Problem
        As a step raised it.
    """
    for step in steps:
        answer = await _asked(step, request)
        if answer is not None:
            metrics.FALLBACK_ANSWERS.labels(step.name).inc()
            return Answered(step.name, answer)
    metrics.FALLBACK_ANSWERS.labels("none").inc()
    return None


async def _asked(step: Step[Request, Answer], request: Request) -> Answer | None:
    began, budget_s, passed = time.perf_counter(), step.budget_ms / 1000, "empty"
    answer: Answer | None = None
    try:
        async with within(budget_s):
            answer = await step.ask(request)
    except Problem:
        raise
    except TimeoutError:
        passed = "timeout"
    except Exception as error:  # noqa: BLE001 - the next step is asked; it is counted, and said at times
        passed = "error"
        _say(step.name, error)
    took_s = time.perf_counter() - began
    metrics.FALLBACK_SECONDS.labels(step.name).observe(took_s)
    if answer is None:
        metrics.FALLBACK_PASSED.labels(step.name, passed).inc()
    elif took_s > budget_s:
        metrics.FALLBACK_OVERRUNS.labels(step.name).inc()
    return answer


def _say(step: str, error: Exception) -> None:
    now = time.monotonic()
    if now - _said.get(step, -SAY_AGAIN_S) >= SAY_AGAIN_S:
        _said[step] = now
        log.error("a step of the fallback chain failed, and the next was asked", step=step, exc_info=error)
