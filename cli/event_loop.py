"""An event loop that ends: `asyncio.run` waits for ever for a task that does not heed its cancellation.

Faust's supervisor of an agent loses a cancellation that reaches it while it deals with the agent's failure, and supervises
on: a worker whose agents had failed with the broker away never came back. The process is about to end or to become another
one, so what is left of a loop can be left.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

log = structlog.get_logger(__name__)
T = TypeVar("T")

#: What is left when the main task has ended is cancelled, and has this long to clean up.
LEAVE_TIMEOUT_S = 2.0
SHOWN = 5


def run_to_end(main: Coroutine[Any, Any, T], leave_timeout_s: float = LEAVE_TIMEOUT_S) -> T:
    """Run `main` on a loop of its own, cancel what it leaves behind, and wait no longer than `leave_timeout_s` for that."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main)
    finally:
        left = _cancelled(loop, leave_timeout_s)
        if left:
            log.warning("tasks left behind", n=len(left), first=[_name(task) for task in left[:SHOWN]])
        else:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
        asyncio.set_event_loop(None)


def _cancelled(loop: asyncio.AbstractEventLoop, timeout_s: float) -> list["asyncio.Task[Any]"]:
    """Cancel all tasks of `loop`; returns those that go on."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if not tasks:
        return []
    _, left = loop.run_until_complete(asyncio.wait(tasks, timeout=timeout_s))
    return list(left)


def _name(task: "asyncio.Task[Any]") -> str:
    """Where the task waits: its coroutines' names, outermost first."""
    names: list[str] = []
    waiting: Any = task.get_coro()
    while waiting is not None and len(names) < SHOWN:
        names.append(getattr(waiting, "__qualname__", type(waiting).__name__))
        waiting = getattr(waiting, "cr_await", None)
    return " > ".join(names)
