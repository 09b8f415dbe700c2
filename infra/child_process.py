"""A long-lived child in a session of its own that ends with us, and tells when it ends before that."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from infra import die_with_parent
from infra.file_lock import FileLock


class ChildProcess:
    """A running program whose output goes to `log_file` and that holds `lock` for as long as it lives.

    It has its own session, so Ctrl-C in the terminal does not reach it before us, and it gets a SIGTERM when this
    process ends in any way, kill -9 included (on Linux).

    Parameters
    ----------
    command : program (absolute path) and arguments
    log_file : appended to
    lock : held by the caller; the child inherits it
    on_exit : called with the exit status, in another thread, when the program has ended
    environment : its variables; by default ours
    """

    def __init__(
        self,
        command: Sequence[str],
        log_file: Path,
        lock: FileLock,
        on_exit: Callable[[int], None],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command, self._log_file, self._lock, self._on_exit = list(command), log_file, lock, on_exit
        self._environment = dict(os.environ if environment is None else environment)
        self._started, self._ended = threading.Event(), threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._failure: OSError | None = None
        # The kernel sends the parent-death signal when the *thread* that started the child ends: this one lives for
        # as long as the child does.
        threading.Thread(target=self._run, name="child-process", daemon=True).start()
        self._started.wait()
        if self._failure:
            raise self._failure

    @property
    def pid(self) -> int:
        """Process id; the program's own once it runs."""
        assert self._process is not None  # set before __init__ returns  # noqa: S101
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        if not self._ended.is_set() or self._process is None:
            return None
        return self._process.returncode

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end; False if it still runs after `timeout_s`."""
        return self._ended.wait(timeout_s)

    def send(self, signum: signal.Signals) -> None:
        """Send a signal; nothing happens if it has ended."""
        if self._process is not None:
            self._process.send_signal(signum)

    def _run(self) -> None:
        launcher = [sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid()), str(self._lock.fd)]
        try:
            with self._log_file.open("ab") as log:
                self._process = subprocess.Popen(
                    launcher + self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[self._lock.fd],
                    start_new_session=True,
                    # A JVM in the C locale cannot open a folder whose name is not ASCII.
                    env={**self._environment, "LC_ALL": "C.UTF-8"},
                )
        except OSError as error:
            self._failure = error
            return
        finally:
            self._started.set()
        status = self._process.wait()
        self._ended.set()
        self._on_exit(status)
