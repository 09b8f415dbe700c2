"""A program under measurement: alone on one core, its output in a file, its progress read from there.

It ends with this process, as the broker does (`infra.child_process`).
"""

import os
import re
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.rates import Sample
from infra.child_process import ChildProcess
from infra.file_lock import FileLock

STOP_TIMEOUT_S = 40.0
TAIL_CHARACTERS = 2_000
_PROGRESS = re.compile(rb"^progress (\S+) (\d+)$", re.MULTILINE)
_STOPPED = re.compile(rb"^stopped (\d+)$", re.MULTILINE)


class ContenderFailed(RuntimeError):
    """A contender ended, stood still or miscounted; the message has the end of its output."""


@dataclass(frozen=True)
class Run:
    """One contender's turn.

    Attributes
    ----------
    identity : names its group and its topics; never used before
    folder : for its state and output; empty
    events : in the log
    core : which it has, with all its threads
    limit_s : after its first progress, when a peer that has not done all is stopped
    stall_s : without progress, after which it has failed
    """

    bootstrap: str
    identity: str
    folder: Path
    events: int
    core: int
    limit_s: float
    stall_s: float


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Let what is started in the block, and this thread meanwhile, run on one core alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Contender:
    """A started program; stopped, by force if need be, on leaving.

    Parameters
    ----------
    command : program and arguments; the program by its absolute path
    environment : its variables
    """

    def __init__(self, run: Run, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.log_file = run.folder / "output.log"
        self._run = run
        self._lock = FileLock(run.folder / "contender.lock")
        self._lock.acquire()
        with on_core(run.core):
            self._child = ChildProcess(command, self.log_file, self._lock, lambda _: None, environment)

    def __enter__(self) -> "Contender":
        return self

    def __exit__(self, *_: object) -> None:
        self._child.send(signal.SIGKILL)
        self._child.wait(STOP_TIMEOUT_S)
        self._lock.release()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._child.pid

    def check(self) -> None:
        """Raise ContenderFailed if it has ended."""
        if self._child.exit_status is not None:
            raise self.failed(f"it ended with status {self._child.exit_status}")

    def failed(self, why: str) -> ContenderFailed:
        """Return the error to raise, with the end of the output."""
        return ContenderFailed(f"{why}; the end of {self.log_file}:\n{self._output()[-TAIL_CHARACTERS:].decode()}")

    def samples(self) -> list[Sample]:
        """What it has said of its progress so far."""
        return [Sample(float(at_s), int(count)) for at_s, count in _PROGRESS.findall(self._output())]

    def stop(self) -> int:
        """End it cleanly; returns what it says that it has counted. Raises ContenderFailed."""
        self.end()
        found = _STOPPED.search(self._output())
        if found is None:
            raise self.failed("it did not say what it has counted")
        return int(found[1])

    def end(self) -> None:
        """SIGTERM, and wait. Raises ContenderFailed if that takes too long."""
        self._child.send(signal.SIGTERM)
        if not self._child.wait(STOP_TIMEOUT_S):
            raise self.failed(f"it did not stop in {STOP_TIMEOUT_S:.0f} s")

    def await_samples(self) -> list[Sample]:
        """Wait until it has done all, or has used up its time. Raises ContenderFailed if it ended or stands still."""
        run = self._run
        heard_s = time.monotonic()
        count = 0
        while True:
            self.check()
            samples = self.samples()
            if samples and (samples[-1].done >= run.events or samples[-1].at_s - samples[0].at_s >= run.limit_s):
                return samples
            if samples and samples[-1].done > count:
                count, heard_s = samples[-1].done, time.monotonic()
            if time.monotonic() - heard_s > run.stall_s:
                raise self.failed(f"no progress for {run.stall_s:.0f} s, at {count} of {run.events}")
            # Not too often: reading goes on beside the broker.
            time.sleep(0.2)

    def _output(self) -> bytes:
        return self.log_file.read_bytes() if self.log_file.exists() else b""
