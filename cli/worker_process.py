"""`headrace worker` as a child process that is started, killed, stopped, paused and asked, again and again.

It ends with us, whatever ends us (a paused one excepted: only SIGKILL ends that). Its settings are those given here alone:
HEADRACE_ variables of ours do not reach it.
"""

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cli.worker_client import WorkerClient, WorkerRefused, WorkerUnavailable, base_url
from infra.child_process import ChildProcess
from infra.file_lock import FileLock
from infra.kafka_probe import free_port
from infra.settings import PREFIX

HOST = "127.0.0.1"
#: The last checkpoints and the goodbye to the group take up to 20 s; then it is killed.
STOP_TIMEOUT_S = 30.0
#: A worker that is recovering answers 503 at once; one that is paused not at all.
ASK_TIMEOUT_S = 1.0
LOG_TAIL_LINES = 30
OUTCOMES = ("learned", "ignored", "duplicate", "dead")


class WorkerEnded(RuntimeError):
    """A worker ended by itself; the message has the end of its log."""


def worker_environment(bootstrap: str, home: Path, port: int, settings: Mapping[str, object]) -> dict[str, str]:
    """Variables of a worker: ours but for HEADRACE_ ones, and what is given; `settings` by field name."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(PREFIX)},
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        f"{PREFIX}HOME": str(home),
        f"{PREFIX}WEB_PORT": str(port),
        **{PREFIX + name.upper(): str(value) for name, value in settings.items()},
    }


def handled(totals: Mapping[str, int]) -> int:
    """Interactions that became one of the four things."""
    return sum(totals.get(name, 0) for name in OUTCOMES)


class WorkerProcess:
    """One worker on a folder of its own, not started yet.

    Parameters
    ----------
    name : for messages
    bootstrap : of a broker
    home : its HEADRACE_HOME; created if need be
    port : where it always answers; by default another one after each start
    settings : other settings by field name
    """

    def __init__(self, name: str, bootstrap: str, home: Path, *, port: int | None = None, **settings: object) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.name, self.home = name, home
        self.log_file = home / "worker.log"
        self.paused = False
        #: Where it answers, once it is started.
        self.url = "" if port is None else base_url(HOST, port)
        self._bootstrap, self._port, self._settings = bootstrap, port, settings
        self._lock = FileLock(home / "worker.lock")
        if not self._lock.acquire():
            raise WorkerEnded(f"process {self._lock.path.read_text()} holds {home}: end it")
        self._child: ChildProcess | None = None
        self._client: WorkerClient | None = None

    @property
    def running(self) -> bool:
        """Whether it was started and not ended by us; raises WorkerEnded if it has ended by itself."""
        if self._child is None:
            return False
        status = self._child.exit_status
        if status is not None:
            raise WorkerEnded(
                f"worker {self.name} ended by itself with status {status}; the end of its log:\n{self.log_tail}"
            )
        return True

    @property
    def pid(self) -> int | None:
        """Process id, the same when the worker restarts by itself; None if we have not started it."""
        return None if self._child is None else self._child.pid

    @property
    def log(self) -> str:
        """All that its lives have logged."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    @property
    def log_tail(self) -> str:
        """The end of the log."""
        return "\n".join(self.log.splitlines()[-LOG_TAIL_LINES:])

    @property
    def restarts(self) -> int:
        """How often it has restarted by itself."""
        return self.log.count("worker restarts")

    def start(self) -> None:
        """Start it; returns at once."""
        port = self._port or free_port(HOST)
        environment = worker_environment(self._bootstrap, self.home, port, self._settings)
        self.url = base_url(HOST, port)
        self._client = WorkerClient(self.url, ASK_TIMEOUT_S)
        command = [sys.executable, "-m", "cli.main", "worker"]
        self._child = ChildProcess(command, self.log_file, self._lock, lambda _: None, environment)

    def kill(self) -> None:
        """SIGKILL: nothing is said, written or closed. Ends a paused one too."""
        if self._child is not None:
            self._child.send(signal.SIGKILL)
            self._child.wait(STOP_TIMEOUT_S)
        self._ended()

    def stop(self) -> int | None:
        """SIGTERM and a wait for the end; returns the exit status, None if it had to be killed."""
        if self._child is None:
            return 0
        self._child.send(signal.SIGTERM)
        status = self._child.exit_status if self._child.wait(STOP_TIMEOUT_S) else None
        self.kill()
        return status

    def pause(self) -> None:
        """SIGSTOP: it stands still, its connections stay open."""
        if self._child is not None:
            self.paused = True
            self._child.send(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: it goes on as if no time had passed."""
        if self._child is not None:
            self._child.send(signal.SIGCONT)
            self.paused = False

    def ready(self) -> dict[str, Any] | None:
        """`/readyz` (`shards`, `totals`) of a ready worker, None of any other."""
        if self._client is None or self.paused or not self.running:
            return None
        try:
            return self._client.ask("GET", "/readyz")
        except (WorkerUnavailable, WorkerRefused):
            return None

    def wait_restarted(self, more_than: int, timeout_s: float) -> bool:
        """Wait until it has restarted by itself more often than that; False if it does not in time."""
        deadline = time.monotonic() + timeout_s
        while self.restarts <= more_than:
            if not self.running or time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def _ended(self) -> None:
        self._child, self.paused = None, False
        if self._client is not None:
            self._client.close()
            self._client = None

    def close(self) -> None:
        """Kill it if it runs, and let go of the folder."""
        self.kill()
        self._lock.release()
