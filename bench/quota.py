"""A quota of CPU time for running processes, without rights or tools: SIGSTOP when one has used it up, SIGCONT when it has some.

Process ids flow in. Over any stretch much longer than a period a process gets at most its share of a core, with all its threads, and
at least that if the machine has it to give. What it did not use is kept for `KEPT` periods only, so that it never takes much at once.
"""

import os
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType

PERIOD_S = 0.02
KEPT = 5


def cpu_s(pid: int) -> float:
    """CPU time of a process, of all its threads, in seconds, to the nanosecond (`clock_getcpuclockid(3)`, Linux)."""
    return time.clock_gettime((~pid << 3) | 2)


class Quota:
    """Holds processes to `share` of a core each, within a `with` block; lets them go at its end.

    Parameters
    ----------
    pids : of processes that nobody else stops or continues
    share : above 0
    """

    def __init__(self, pids: Sequence[int], share: float) -> None:
        self._share = share
        self._pids = list(pids)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._hold, name="quota", daemon=True)

    def __enter__(self) -> "Quota":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        for pid in self._pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _hold(self) -> None:
        most_s = self._share * PERIOD_S * KEPT
        left_s = dict.fromkeys(self._pids, 0.0)
        used_s = {pid: cpu_s(pid) for pid in self._pids}
        stopped: set[int] = set()
        before = time.monotonic()
        while not self._over.wait(PERIOD_S):
            now = time.monotonic()
            for pid in self._pids:
                with suppress(OSError):  # it has ended
                    used = cpu_s(pid)
                    left_s[pid] = min(most_s, left_s[pid] + self._share * (now - before) - (used - used_s[pid]))
                    used_s[pid] = used
                    if (left_s[pid] < 0) != (pid in stopped):
                        os.kill(pid, signal.SIGSTOP if left_s[pid] < 0 else signal.SIGCONT)
                        stopped ^= {pid}
            before = now
