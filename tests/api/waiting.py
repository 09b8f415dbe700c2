"""Waiting for a worker over HTTP."""

import time

import httpx

from tests.agents.running_worker import HOST, RunningWorker


def ready(running: RunningWorker, within_s: float = 60.0) -> None:
    """Return when the worker says that it is ready; fail with its log if it ends, or takes too long."""
    deadline = time.monotonic() + within_s
    while True:
        assert running.process.poll() is None, running.log[-3000:]
        assert time.monotonic() < deadline, running.log[-3000:]
        try:
            if httpx.get(f"http://{HOST}:{running.port}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
