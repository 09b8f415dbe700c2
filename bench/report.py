"""What every benchmark says about itself: how often and how long it ran, of which commit, on which machine, under what load.

A benchmark hands its figures to `emit`, which adds these and prints a table, or one JSON object.
"""

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
#: Where a benchmark puts brokers, stores and what it builds; safe to delete.
SCRATCH = ROOT / ".headrace" / "bench"
_STARTED = time.monotonic()


def machine() -> str:
    """The processor, its cores and the memory, in one line."""
    model = platform.processor() or platform.machine()
    with Path("/proc/cpuinfo").open() as lines:
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    memory_gib = psutil.virtual_memory().total / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, Python {platform.python_version()}"


def commit() -> str:
    """The short commit of this checkout, with `-dirty` where files differ from it; empty outside of a checkout."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def summary(values: Sequence[float], digits: int = 1) -> dict[str, Any]:
    """Median, least and largest of repeated measurements, with each of them."""
    return {
        "median": round(median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
        "runs": [round(value, digits) for value in values],
    }


def emit(figures: Mapping[str, Any], *, n: int, as_json: bool) -> None:
    """Print `figures` with `n`, `seconds`, `commit`, `machine` and `load` (1, 5 and 15 minutes, as it ended).

    Parameters
    ----------
    figures : the benchmark's own keys; nested mappings are fine
    n : how many times each figure was measured, or of how many measurements it is the quantile
    as_json : one JSON object on one line instead of a table
    """
    whole = {
        **figures,
        "n": n,
        "seconds": round(time.monotonic() - _STARTED, 1),
        "commit": commit(),
        "machine": machine(),
        "load": [round(load, 2) for load in os.getloadavg()],
    }
    if as_json:
        print(json.dumps(whole))
        return
    table = Table(show_header=False)
    for name, value in _flat(whole):
        table.add_row(name, value)
    Console().print(table)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, str(value)))
    return rows
