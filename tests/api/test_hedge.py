"""Asking twice: when it is, when it is not, and that what is not needed ends."""

import asyncio
import time
from collections.abc import Callable

import pytest

from api.hedge import hedged


class Final(Exception):
    """An error that is an answer."""


class Service:
    """Answers each attempt as it is told: after so long, with so much."""

    def __init__(self, *attempts: tuple[float, str | Exception]) -> None:
        self._attempts = list(attempts)
        self.began = self.ended = self.cancelled = 0

    async def __call__(self) -> str:
        after_s, answer = self._attempts[self.began]
        self.began += 1
        try:
            await asyncio.sleep(after_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.ended += 1
        if isinstance(answer, Exception):
            raise answer
        return answer


async def ask(service: Service, after_s: float, second: Callable[[], None] = lambda: None) -> str:
    return await asyncio.wait_for(hedged(service, after_s, (Final,), second), 10)


async def test_who_answers_in_time_is_asked_once() -> None:
    service = Service((0.0, "first"))
    assert await ask(service, 30) == "first"
    assert (service.began, service.ended) == (1, 1)


async def test_who_does_not_is_asked_again_and_what_is_not_needed_ends() -> None:
    service, told = Service((60, "first"), (0.0, "second")), []
    assert await ask(service, 0.02, lambda: told.append(1)) == "second"
    assert (service.began, service.cancelled, told) == (2, 1, [1])


async def test_the_first_answer_may_still_win_and_there_is_no_third_question() -> None:
    service = Service((0.2, "first"), (60, "second"))
    assert await ask(service, 0.01) == "first"
    assert (service.began, service.cancelled) == (2, 1)


async def test_an_attempt_that_fails_is_repeated_at_once_and_only_once() -> None:
    service = Service((0.0, OSError("reset")), (0.0, "second"))
    began = time.monotonic()
    assert await ask(service, 30) == "second"
    assert time.monotonic() - began < 15
    service = Service((0.0, OSError("reset")), (0.0, OSError("again")))
    with pytest.raises(OSError, match="again"):
        await ask(service, 30)
    assert service.began == 2


async def test_one_that_fails_beside_one_that_is_under_way_decides_nothing() -> None:
    service = Service((0.2, "first"), (0.0, OSError("reset")))
    assert await ask(service, 0.01) == "first"
    service = Service((0.05, OSError("slow reset")), (0.2, "second"))
    assert await ask(service, 0.01) == "second"


async def test_an_error_that_is_an_answer_ends_it() -> None:
    service = Service((0.0, Final()))
    with pytest.raises(Final):
        await ask(service, 30)
    assert service.began == 1
    service = Service((60, "first"), (0.0, Final()))
    with pytest.raises(Final):
        await ask(service, 0.01)
    assert (service.began, service.cancelled) == (2, 1)


async def test_whoever_gives_up_leaves_nothing_under_way() -> None:
    service = Service((60, "first"), (60, "second"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(hedged(service, 0.01), 0.2)
    assert (service.began, service.cancelled) == (2, 2)
