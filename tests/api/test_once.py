"""A question that is asked twice is answered once."""

import asyncio

import pytest

from api.once import Once


class Maker:
    """Counts what it is asked to make."""

    def __init__(self, error: Exception | None = None) -> None:
        self.made, self._error = 0, error

    async def __call__(self) -> int:
        self.made += 1
        await asyncio.sleep(0.02)
        if self._error is not None:
            raise self._error
        return self.made


async def test_asked_again_at_once_or_later_it_is_the_same_answer() -> None:
    once, maker = Once[int](), Maker()
    assert await asyncio.gather(*(once.answer("q", maker) for _ in range(5))) == [1] * 5
    assert await once.answer("q", maker) == 1
    assert await once.answer("r", maker) == 2


async def test_so_is_an_error() -> None:
    once, maker = Once[int](), Maker(OSError("gone"))
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            await once.answer("q", maker)
    assert maker.made == 1


async def test_whoever_goes_away_does_not_end_it_for_others() -> None:
    once, maker = Once[int](), Maker()
    first = asyncio.create_task(once.answer("q", maker))
    await asyncio.sleep(0)
    second = asyncio.create_task(once.answer("q", maker))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 1
    assert first.cancelled()


async def test_what_is_kept_is_bounded() -> None:
    once, maker = Once[int](most=3), Maker()
    for number in range(10):
        await once.answer(number, maker)
        assert len(once) <= 3
    assert await once.answer(9, maker) == 10
    assert await once.answer(0, maker) == 11
