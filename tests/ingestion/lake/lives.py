"""`headrace lake` in processes of their own, which can be killed where a test wants it; forked, so that a life costs little."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping

from tests.agents.faults import Fault, inject

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["cli.lake", "ingestion.lake.tail", "ingestion.lake.compact", "ingestion.lake.forget"])
_POLL_S = 0.05


def live(
    arguments: list[str],
    environment: Mapping[str, str],
    fault: Fault | None = None,
    *,
    until: Callable[[], bool] = lambda: False,
    signum: signal.Signals = signal.SIGKILL,
) -> int:
    """Run `headrace lake ...`, and send it a signal when `until` says so; returns its exit status, minus the number of a signal."""
    process = _forks.Process(target=_become, args=(arguments, dict(environment), fault))
    process.start()
    while process.exitcode is None and not until():
        process.join(_POLL_S)
    if process.exitcode is None and process.pid is not None:
        os.kill(process.pid, signum)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _become(arguments: list[str], environment: dict[str, str], fault: Fault | None) -> None:
    from cli.lake import lake

    os.environ.clear()
    os.environ.update(environment)
    if fault is not None:
        inject(fault)
    lake(arguments)
