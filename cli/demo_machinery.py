"""The demo's children: a broker and a worker of its own, in a folder that no real worker uses."""

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cli.demo_probes import read_totals
from cli.worker_client import WorkerClient, WorkerUnavailable, base_url
from infra.child_process import ChildProcess
from infra.embedded_kafka import EmbeddedKafka
from infra.file_lock import FileLock
from infra.kafka_address import KAFKA_SECURITY_PREFIX
from infra.kafka_probe import free_port, is_free
from infra.settings import Settings, variable_of

#: The first start on a machine compiles the models' loops.
READY_TIMEOUT_S = 300.0
#: After that the wait deserves a word.
SLOW_START_S = 8.0
STOP_TIMEOUT_S = 30.0
#: The demo's worker asks for no keys, and so may be reached from this machine only.
HOST = "127.0.0.1"
ORPHAN_TIMEOUT_S = 10.0
LOG_TAIL_LINES = 15

Say = Callable[[str], None]


class DemoError(RuntimeError):
    """The demo cannot go on; the message says why."""


@contextlib.contextmanager
def own_folder(home: Path, *, keep: bool) -> Iterator[Path]:
    """Give the demo's folder, empty unless `keep`; only one demo at a time has it."""
    folder = home.resolve() / "demo"
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.parent / "demo.lock")
    if not lock.acquire():
        raise DemoError(f"another demo runs in {folder}: stop it, or set HEADRACE_HOME to another folder")
    try:
        if not keep and folder.exists():
            _remove(folder)
        folder.mkdir(exist_ok=True)
        yield folder
    finally:
        lock.release()


def _remove(folder: Path) -> None:
    """Remove what the last demo left, once nothing of it runs any more."""
    for name in ("worker.lock", "kafka/broker.lock"):
        if not (folder / name).exists():
            continue
        with FileLock(folder / name) as lock:
            if not lock.acquire(ORPHAN_TIMEOUT_S):
                raise DemoError(f"process {lock.path.read_text()} of an earlier demo still runs in {folder}: end it")
    shutil.rmtree(folder)


class Worker:
    """The worker as a child process, which is started again when something kills it."""

    def __init__(self, url: str, log_file: Path, lock: FileLock, environment: Mapping[str, str], say: Say) -> None:
        self.url, self.log_file = url, log_file
        self._lock, self._environment, self._say = lock, environment, say
        self._child = self._start()

    @property
    def pid(self) -> int:
        """Process id; it stays the same when the worker restarts by itself."""
        return self._child.pid

    def check(self) -> None:
        """Start a killed worker again; raise DemoError with the end of its log if it has given up."""
        status = self._child.exit_status
        if status is None:
            return
        if status < 0:
            self._say(f"The worker was killed by signal {-status}; starting it again, from its last checkpoint")
            self._child = self._start()
            return
        tail = "\n".join(self.log_file.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
        raise DemoError(f"the worker ended with status {status}; the end of its log:\n{tail}")

    def stop(self) -> None:
        """End it cleanly, by force after a while."""
        self._child.send(signal.SIGTERM)
        if not self._child.wait(STOP_TIMEOUT_S):
            self._child.send(signal.SIGKILL)
            self._child.wait(STOP_TIMEOUT_S)

    def _start(self) -> ChildProcess:
        command = [sys.executable, "-m", "cli.main", "worker"]
        return ChildProcess(command, self.log_file, self._lock, lambda _: None, self._environment)


@contextlib.contextmanager
def own_worker(settings: Settings, folder: Path, kafka: EmbeddedKafka, say: Say) -> Iterator[Worker]:
    """Start `headrace worker` on the demo's broker and folder, and wait until it is ready."""
    port = settings.web_port
    if not is_free(HOST, port):
        port = free_port(HOST)
        say(f"Port {settings.web_port} is in use: the demo's worker listens on {port}")
    environment = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        variable_of("home"): str(folder),
        variable_of("version"): settings.version,
        variable_of("web_host"): HOST,
        variable_of("web_port"): str(port),
        # A key would have to be made, and shown, for a worker that nobody else reaches.
        variable_of("api_keys"): "",
        variable_of("metrics_port"): "",
        # The demo's own broker speaks plain text.
        **{name: "" for name in os.environ if name.startswith(KAFKA_SECURITY_PREFIX)},
    }
    log_file = folder / "worker.log"
    with FileLock(folder / "worker.lock") as lock:
        if not lock.acquire(ORPHAN_TIMEOUT_S):
            raise DemoError(f"process {lock.path.read_text()} of an earlier demo still runs in {folder}: end it")
        worker = Worker(base_url(HOST, port), log_file, lock, environment, say)
        try:
            _await_ready(worker, kafka, say)
            yield worker
        finally:
            worker.stop()


def _await_ready(worker: Worker, kafka: EmbeddedKafka, say: Say) -> None:
    client = WorkerClient(worker.url)
    began = time.monotonic()
    told = False
    while True:
        worker.check()
        kafka.check()
        try:
            read_totals(client)
        except WorkerUnavailable:
            waited_s = time.monotonic() - began
            if waited_s > READY_TIMEOUT_S:
                raise DemoError(f"the worker is not ready after {waited_s:.0f} s; see {worker.log_file}") from None
            if waited_s > SLOW_START_S and not told:
                told = True
                say("The first start on a machine compiles the models' loops: up to a minute")
            time.sleep(0.1)
        else:
            client.close()
            return
