"""Worker processes that come from a fork server, and whose first life may have a fault.

One fork server a process of tests: it is started when the first worker is, and ends with the tests.
"""

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

HOST = "127.0.0.1"
T = TypeVar("T")


class ForkServer:
    """The process that workers are forked from."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.agents.fork_server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._asking = threading.Lock()
        atexit.register(self._stop)

    def ask(self, request: dict[str, Any]) -> Any:
        """One request, one answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._asking:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())

    def _stop(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


@functools.cache
def fork_server() -> ForkServer:
    """The one of this process."""
    return ForkServer()


class Forked:
    """A worker of the fork server's, with as much of `subprocess.Popen` as tests need."""

    def __init__(self, **request: Any) -> None:
        self.returncode: int | None = None
        self.pid = int(fork_server().ask(request))

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        if self.returncode is None:
            self.returncode = fork_server().ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float) -> int:
        """The exit status, once it has ended. Raises subprocess.TimeoutExpired."""
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"worker {self.pid}", timeout)
            time.sleep(0.01)
        return status

    def send_signal(self, signum: int) -> None:
        """Send a signal; nothing happens if it is known to have ended."""
        if self.returncode is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Lives:
    """Workers that end together."""

    def __enter__(self) -> "Lives":
        self._running: dict[int, Forked] = {}
        return self

    def start(self, **request: Any) -> int:
        process = Forked(**request)
        self._running[process.pid] = process
        return process.pid

    def poll(self, pid: int) -> int | None:
        status = self._running[pid].poll()
        if status is not None:
            self._running.pop(pid)
        return status

    def end(self) -> None:
        """Kill whoever still lives."""
        for process in self._running.values():
            process.kill()
            process.wait(10)
        self._running.clear()

    def __exit__(self, *_: object) -> None:
        self.end()


@dataclass
class Life:
    """One worker process."""

    lives: Lives
    pid: int
    port: int
    home: Path
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def status(self, within_s: float = 40.0) -> int:
        """The exit status, once it has ended."""
        return self.until(lambda: self.lives.poll(self.pid), "the worker goes on", within_s)

    def totals(self) -> dict[str, int]:
        """What `/readyz` says is learned; empty while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}/readyz", timeout=2) as answer:
                return dict(json.load(answer)["totals"])
        except OSError:
            return {}

    def until(self, there: Callable[[], T | None], complaint: str, within_s: float = 40.0) -> T:
        """Poll for something that is not None."""
        deadline = time.monotonic() + within_s
        while (found := there()) is None:
            assert time.monotonic() < deadline, f"{complaint} after {within_s:.0f} s; log:\n{self.log[-3000:]}"
            time.sleep(0.02)
        return found

    def says(self, text: str, within_s: float = 40.0) -> None:
        """Wait until the log holds `text`."""
        self.until(lambda: text in self.log or None, f"no {text!r}", within_s)

    def signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def stop(self) -> None:
        """Ctrl-C, and a clean end."""
        self.signal(signal.SIGINT)
        assert self.status(25) == 0, self.log[-3000:]

    def kill(self) -> None:
        """SIGKILL, and its end."""
        self.signal(signal.SIGKILL)
        assert self.status() == -signal.SIGKILL
