"""wrk, the load generator: a run of it against a worker, and what that has measured.

A script in Lua makes the requests and counts the answers (`wrk_lists.lua`, `wrk_events.lua`); its last line is JSON. Each of the
connections waits for its answer before it asks again: a closed loop. wrk takes an answer that is late for one that held up others,
and adds those that would have been asked meanwhile (coordinated omission), so its quantiles are larger than those of the answers
that there were; both are reported.

    wrk -t1 -c8 -d10s -s bench/wrk_lists.lua http://127.0.0.1:6066 PATHS SEED
"""

import json
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from state.types import Int64Array

#: Beyond it wrk counts a late answer as an error, and no larger latency is kept.
TIMEOUT_S = 5
#: A run ends by then, or wrk itself hangs.
SPARE_S = 30.0
QUANTILES = (50, 95, 99)


class WrkMissing(RuntimeError):
    """There is no wrk on this machine."""

    def __init__(self) -> None:
        super().__init__(
            "wrk makes the load and is not installed: install it (on Debian and Ubuntu: apt-get install wrk; "
            "on macOS: brew install wrk)"
        )


class WrkFailed(RuntimeError):
    """wrk ended without a report; the message has what it said."""


@dataclass(frozen=True)
class Load:
    """What is asked: a script beside this file, and its arguments."""

    script: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Answers:
    """What a run has measured.

    Attributes
    ----------
    requests : answered ones, failures too
    seconds : from its start to its end
    errors : answers of 400 and above, lost connections, and what took longer than `TIMEOUT_S`
    counts : by the script's own names
    latency_ms : by quantile ("p50", ...), as wrk corrects them
    answered_ms : the same of the answers that there were
    """

    requests: int
    seconds: float
    errors: int
    counts: Mapping[str, int]
    latency_ms: Mapping[str, float]
    answered_ms: Mapping[str, float]

    @property
    def per_s(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds


def find_wrk() -> str:
    """Path of the program. Raises WrkMissing."""
    path = shutil.which("wrk")
    if path is None:
        raise WrkMissing
    return path


class Wrk:
    """A running wrk, killed on leaving if it still runs.

    Parameters
    ----------
    url : of a worker; with a path where the script gives none
    connections : each asks, waits for the answer, and asks again
    seconds : whole ones
    """

    def __init__(self, url: str, load: Load, connections: int, seconds: int) -> None:
        self._connections, self._seconds = connections, seconds
        script = Path(__file__).with_name(load.script)
        shape = ["-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={TIMEOUT_S}s"]
        self._process = subprocess.Popen(
            [find_wrk(), *shape, "-s", str(script), url, *load.arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> "Wrk":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def wait(self) -> Answers:
        """Wait for the end of the run. Raises WrkFailed."""
        output, _ = self._process.communicate(timeout=self._seconds + SPARE_S)
        lines = output.splitlines()
        if self._process.returncode or not lines or not lines[-1].startswith("{"):
            raise WrkFailed(f"wrk ended with status {self._process.returncode} and no report:\n{output[-1000:]}")
        return read_report(json.loads(lines[-1]), self._connections)

    def stop(self) -> Answers:
        """End the run now. Raises WrkFailed."""
        self._process.send_signal(signal.SIGINT)
        return self.wait()


def run(url: str, load: Load, connections: int, seconds: int) -> Answers:
    """One whole run. Raises WrkFailed."""
    with Wrk(url, load, connections, seconds) as wrk:
        return wrk.wait()


def read_report(report: Mapping[str, Any], connections: int) -> Answers:
    """What `wrk_report.lua` has written. Raises WrkFailed where nothing was answered."""
    if not report["requests"] or not report["latencies"]:
        raise WrkFailed(f"wrk had no answer at all; errors: {report['errors']}")
    values, counts = np.array(report["latencies"], np.int64).T
    # As wrk computes it, in whole microseconds; with fewer answers than connections it corrects nothing.
    turns = report["requests"] // connections
    undone = uncorrected(values, counts, report["duration_us"] // turns) if turns else counts
    return Answers(
        requests=report["requests"],
        seconds=report["duration_us"] / 1e6,
        errors=sum(report["errors"].values()),
        counts=report["counts"],
        latency_ms=quantiles_ms(values, counts),
        answered_ms=quantiles_ms(values, undone),
    )


def uncorrected(values: Int64Array, counts: Int64Array, interval: int) -> Int64Array:
    """Take back what wrk has added for coordinated omission.

    To an answer of at least twice the interval it adds others that took one interval less, two less, and so on, down to more than
    one. From the largest down, all that was added to a value is known when it is reached.

    Parameters
    ----------
    values : int64, shape (m,); microseconds, ascending, each once
    counts : int64, shape (m,); how often, as corrected
    interval : microseconds between requests of a connection, as wrk expects them

    Returns
    -------
    int64, shape (m,); how often each was measured

    Source: `stats_correct` of wrk 4.1.
    """
    left = dict(zip(values.tolist(), counts.tolist(), strict=True))
    for value in sorted(left, reverse=True):
        if value < 2 * interval:
            break
        for added in range(value - interval, interval, -interval):
            left[added] -= left[value]
    return np.array([left[value] for value in values.tolist()], np.int64)


def quantiles_ms(values: Int64Array, counts: Int64Array) -> dict[str, float]:
    """The least value that so many percent do not exceed; in ms of values in microseconds, ascending."""
    upto = np.cumsum(counts)
    places = [int(np.searchsorted(upto, upto[-1] * q / 100)) for q in QUANTILES]
    return {f"p{q}": round(float(values[place]) / 1000, 3) for q, place in zip(QUANTILES, places, strict=True)}
