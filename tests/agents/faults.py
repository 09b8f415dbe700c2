"""Faults for a worker process: the n-th time that a function is reached, the process dies, stops, hangs, or the call fails.

Functions are named as "module:Class.method" and wrapped from outside; the product has no hooks for this.
"""

import asyncio
import functools
import importlib
import inspect
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from aiokafka.errors import KafkaTimeoutError


@dataclass(frozen=True)
class Fault:
    """What happens where.

    Attributes
    ----------
    where : "module:name" or "module:Class.method"
    when : before the call, or after it has returned
    what : `kill` is SIGKILL and `pause` SIGSTOP, both to the own process; `raise` raises `error`; `lose` lets the call succeed
        and its future fail; `hang` never returns; `jump` sets a clock by `hours`, for good
    nth : which call it is, from 1 on
    once : another function; calls count only after it has been called
    error : "module:Class" of what `raise` raises
    """

    where: str
    when: Literal["before", "after"] = "before"
    what: Literal["kill", "pause", "raise", "lose", "hang", "jump"] = "kill"
    nth: int = 1
    once: str = ""
    error: str = "builtins:RuntimeError"
    hours: float = 0.0

    def __str__(self) -> str:
        return f"{self.what} {self.when} call {self.nth} of {self.where}" + (f" after {self.once}" if self.once else "")


def find(name: str) -> tuple[Any, str, Any]:
    """Owner, attribute and value of "module:Class.method"."""
    module, _, path = name.partition(":")
    *parents, attribute = path.split(".")
    owner = functools.reduce(getattr, parents, importlib.import_module(module))
    return owner, attribute, getattr(owner, attribute)


def set_constants(values: Mapping[str, object]) -> None:
    """Give constants, named as functions are, other values."""
    for name, value in values.items():
        owner, attribute, _ = find(name)
        setattr(owner, attribute, value)


def inject(fault: Fault) -> None:
    """Wrap the function that `fault` names, in this process."""
    if fault.what == "jump":
        _jump(fault)
        return
    counting = [not fault.once]
    if fault.once:
        _wrap(fault.once, lambda: counting.__setitem__(0, True), None)
    reached = [0]

    def due() -> bool:
        reached[0] += counting[0]
        return counting[0] and reached[0] == fault.nth

    if fault.when == "before":
        _wrap(fault.where, lambda: _strike(fault) if due() else None, None)
    else:
        _wrap(fault.where, None, lambda result: _strike(fault, result) if due() else result)


def _jump(fault: Fault) -> None:
    owner, attribute, clock = find(fault.where)
    calls = [0]

    def jumped() -> float:
        calls[0] += 1
        if calls[0] == fault.nth:
            print(f"FAULT: {fault}", file=sys.stderr, flush=True)  # noqa: T201 - as below
        return float(clock()) + (fault.hours * 3600 if calls[0] >= fault.nth else 0.0)

    setattr(owner, attribute, jumped)


def _wrap(name: str, before: Callable[[], Any] | None, after: Callable[[Any], Any] | None) -> None:
    owner, attribute, original = find(name)

    @functools.wraps(original)
    def plain(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before()
        result = original(*args, **kwargs)
        return result if after is None else after(result)

    @functools.wraps(original)
    async def waiting(*args: Any, **kwargs: Any) -> Any:
        if before is not None and inspect.isawaitable(endless := before()):
            await endless
        result = await original(*args, **kwargs)
        return result if after is None else after(result)

    setattr(owner, attribute, waiting if inspect.iscoroutinefunction(original) else plain)


def _strike(fault: Fault, result: Any = None) -> Any:
    print(f"FAULT: {fault}", file=sys.stderr, flush=True)  # noqa: T201 - the worker's log shows where it was
    if fault.what == "raise":
        raise find(fault.error)[2]("a fault of the test")
    if fault.what == "lose":
        lost: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        lost.set_exception(KafkaTimeoutError())
        return lost
    if fault.what == "hang":
        return asyncio.get_running_loop().create_future()
    os.kill(os.getpid(), signal.SIGKILL if fault.what == "kill" else signal.SIGSTOP)
    return result
