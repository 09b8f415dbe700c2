"""A loop that ends, whatever its tasks do with their cancellation."""

import asyncio
import time

import pytest

from cli.event_loop import run_to_end


async def deaf() -> None:
    """Lose every cancellation, as a supervisor of Faust does."""
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            continue


def test_a_deaf_task_is_left_behind(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    kept: list[asyncio.Task[None]] = []

    async def main() -> str:
        kept.append(asyncio.create_task(deaf()))
        await asyncio.sleep(0)
        return "done"

    began = time.monotonic()
    assert run_to_end(main(), leave_timeout_s=0.2) == "done"
    assert 0.2 <= time.monotonic() - began < 10
    assert not kept[0].done()
    assert "deaf" in caplog.text + "".join(capsys.readouterr())
    kept[0].get_loop().close()
    kept[0]._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio would say so once it is collected
    kept[0].get_coro().close()


def test_the_others_clean_up_first() -> None:
    cleaned = []

    async def tidy() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(True)

    async def main() -> asyncio.Task[None]:
        task = asyncio.create_task(tidy())
        await asyncio.sleep(0)
        return task

    assert run_to_end(main()).cancelled()
    assert cleaned == [True]


def test_an_error_is_the_callers() -> None:
    async def main() -> None:
        raise ValueError("of main")

    with pytest.raises(ValueError, match="of main"):
        run_to_end(main())
