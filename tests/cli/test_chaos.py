"""`headrace chaos`, small: a broker and a worker that are broken for half a minute, and a recount without a difference."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

CHAOS = (sys.executable, "-m", "cli.main", "chaos")
#: Too short for all kinds of fault: this seed chooses a kill of the worker and a crash of the broker.
MINUTES, SEED = 0.4, 35


def environment(folder: Path) -> dict[str, str]:
    """Ours, with settings that would break what took them for its own, and a temporary folder of its own."""
    folder.mkdir()
    return {
        **os.environ,
        "TMPDIR": str(folder),
        "HEADRACE_HOME": str(folder / "operators"),
        "HEADRACE_PARTITIONS": "1",
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    }


def test_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    done = subprocess.run(
        [*CHAOS, "--minutes", str(MINUTES), "--seed", str(SEED)],
        env=environment(tmp_path / "chaos"),
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    said = done.stdout + done.stderr
    print(done.stdout)  # noqa: T201 - the faults of this run, to repeat what failed
    assert done.returncode == 0, said
    summary = json.loads(done.stdout.splitlines()[-1])
    assert f"seed {SEED}" in done.stdout.splitlines()[0]
    assert (summary["lost"], summary["doubled"], summary["differences"]) == (0, 0, 0), said
    assert summary["kills"] >= 1, said
    assert summary["broker_restarts"] >= 1, said
    assert summary["events"] >= summary["acknowledged"] > 10_000
    assert summary["duplicates"] > 200
    assert summary["dead"] > 50
    assert summary["rows_compared"] > 50
    assert list((tmp_path / "chaos").iterdir()) == []


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "chaos"
    with subprocess.Popen(
        [*CHAOS, "--minutes", "5", "--seed", "1"], env=environment(folder), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = (process.stdout.readline() for _ in range(2))
        assert "seed 1" in next(lines)
        assert "(process" in next(lines), "no fault"
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.send_signal(signal.SIGINT)
        assert process.wait(40) == 130
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert list(folder.iterdir()) == []
