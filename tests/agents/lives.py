"""Worker processes that come from a fork server, and whose first life may have a fault."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

HOST = "127.0.0.1"
T = TypeVar("T")


class Lives:
    """The fork server and the workers that it has started."""

    def __enter__(self) -> "Lives":
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.agents.fork_server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._pids: set[int] = set()
        return self

    def ask(self, request: dict[str, Any]) -> Any:
        """One request, one answer."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def start(self, **request: Any) -> int:
        pid = int(self.ask(request))
        self._pids.add(pid)
        return pid

    def poll(self, pid: int) -> int | None:
        status: int | None = self.ask({"poll": pid})
        if status is not None:
            self._pids.discard(pid)
        return status

    def end(self) -> None:
        """Kill whoever still lives."""
        for pid in list(self._pids):
            os.kill(pid, signal.SIGKILL)
            while self.poll(pid) is None:
                time.sleep(0.01)

    def __exit__(self, *_: object) -> None:
        self.end()
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(10)
        self._server.stdout.close()


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
