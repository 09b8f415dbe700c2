"""A `headrace worker` process whose failures are the test's.

It comes from the fork server, which has loaded what a worker loads; all after that is as in any other. A `FreshWorker` is a program
of its own, as an operator starts it in a terminal; so is each that has started anew by itself.
"""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from cli.committed import latest, read_committed
from cli.worker_process import HOST, handled, worker_environment
from infra.kafka_probe import free_port
from tests.agents.lives import Forked

__all__ = ["HOST", "FreshWorker", "RunningWorker", "handled", "latest", "read_committed"]


class RunningWorker:
    """Started on entering; killed, if it still runs, on leaving."""

    process: Forked | subprocess.Popen[bytes]

    def __init__(self, bootstrap: str, home: Path, app: str, **settings: object) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.port = free_port(HOST)
        self.log_file = home / f"worker-{time.time_ns()}.log"
        self._environment = worker_environment(bootstrap, home, self.port, {"app": app, **settings})

    def __enter__(self) -> "RunningWorker":
        self.log_file.touch()
        self.process = self._started()
        return self

    def _started(self) -> "Forked | subprocess.Popen[bytes]":
        return Forked(environment=self._environment, log=str(self.log_file), fault=None, constants={})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """SIGKILL: nothing is said, written or closed."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """Ctrl-C; returns the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(25)

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def totals(self) -> dict[str, int]:
        """What `/readyz` says is learned; empty while nobody answers, and where it is said at another port."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}/readyz", timeout=2) as answer:
                return dict(json.load(answer).get("totals", {}))
        except (OSError, urllib.error.URLError):
            return {}

    def wait(self, until: Callable[[dict[str, int]], bool], timeout_s: float = 30.0) -> dict[str, int]:
        """Poll the totals until they are as wanted; fails with the worker's log if that takes too long."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            totals = self.totals()
            if until(totals):
                return totals
            assert self.process.poll() is None, f"the worker ended by itself:\n{self.log[-3000:]}"
            time.sleep(0.02)
        raise AssertionError(f"not in {timeout_s:.0f} s; totals {self.totals()}, log:\n{self.log[-3000:]}")


class FreshWorker(RunningWorker):
    """One that loads everything by itself."""

    def _started(self) -> subprocess.Popen[bytes]:
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "cli.main", "worker"], stdout=log, stderr=log, env=self._environment
            )
