"""A circuit breaker: a service that does not answer is left alone for a while, and costs nobody's time meanwhile.

Calls flow in, results or errors flow out. It is closed while calls succeed, opens after some failures in a row, and then lets one call
through after a pause that grows with each one that fails (half-open). Always holds: while it is not closed at most one call is under
way, and no call takes longer than it may.

Ours, for want of a library that does this: purgatory pauses for a fixed time by the wall clock and then lets all callers through at
once, and aiobreaker has had no release since 2021.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import TypeVar

import structlog

from api.budget import within
from infra import metrics

log = structlog.get_logger(__name__)
T = TypeVar("T")

#: In a row, before it opens: one lost connection is not worth a pause.
FAILURES = 5
#: The first pause, so that a restart is noticed at once, and the longest: how long a service may be back without being used.
PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0


class State(IntEnum):
    """As in the metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class BreakerOpen(Exception):
    """The service was not asked."""


class Breaker:
    """Guards calls to one service.

    Parameters
    ----------
    name : in metrics and logs
    answers : errors by which the service itself answers; to a breaker they are successes
    failures : in a row that open it
    pause_s, longest_pause_s : until a call is tried again; doubled by each that fails
    clock : seconds, monotonic
    tell : is told each state; the metric, under the name, if nobody is named
    """

    def __init__(
        self,
        name: str,
        answers: tuple[type[Exception], ...] = (),
        failures: int = FAILURES,
        pause_s: float = PAUSE_S,
        longest_pause_s: float = LONGEST_PAUSE_S,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[State], None] | None = None,
    ) -> None:
        self._name, self._answers, self._failures, self._clock = name, answers, failures, clock
        self._first_pause_s, self._longest_pause_s = pause_s, longest_pause_s
        self._pause_s, self._until, self._in_a_row = pause_s, 0.0, 0
        self._state = State.CLOSED
        self._tell = metrics.BREAKER_STATE.labels(name).set if tell is None else tell
        self._enter(State.CLOSED)

    @property
    def state(self) -> State:
        """As of the last call: an open breaker whose pause is over is open until somebody calls."""
        return self._state

    async def call(self, work: Callable[[], Awaitable[T]], within_s: float) -> T:
        """What `work` returns or raises.

        Raises
        ------
        BreakerOpen
            `work` was not called.
        TimeoutError
            It took longer than `within_s` (see `api.budget`), and was cancelled.
        """
        if not self._lets_through():
            raise BreakerOpen(self._name)
        began = self._clock()
        try:
            async with within(within_s):
                result = await work()
        except self._answers:
            self._succeeded()
            raise
        except asyncio.CancelledError:
            # By the caller. One whose own budget is a little shorter than ours has seen what we would have seen.
            if self._clock() - began >= within_s / 2:
                self._failed(TimeoutError())
            elif self._state is State.HALF_OPEN:
                self._enter(State.OPEN)
            raise
        except Exception as error:
            self._failed(error)
            raise
        self._succeeded()
        return result

    def _lets_through(self) -> bool:
        if self._state is State.OPEN and self._clock() >= self._until:
            self._enter(State.HALF_OPEN)
            return True
        return self._state is State.CLOSED

    def _succeeded(self) -> None:
        self._in_a_row, self._pause_s = 0, self._first_pause_s
        if self._state is not State.CLOSED:
            log.info("it answers again", service=self._name)
            self._enter(State.CLOSED)

    def _failed(self, error: Exception) -> None:
        self._in_a_row += 1
        if self._state is State.HALF_OPEN:
            self._pause_s = min(2 * self._pause_s, self._longest_pause_s)
        elif self._state is State.OPEN or self._in_a_row < self._failures:
            return
        else:
            log.warning("it does not answer, and is left alone for a while", service=self._name, error=repr(error))
        self._until = self._clock() + self._pause_s
        self._enter(State.OPEN)

    def _enter(self, state: State) -> None:
        self._state = state
        self._tell(state)
