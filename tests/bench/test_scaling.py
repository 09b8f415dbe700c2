import subprocess
import sys
import time

import pytest

from bench.quota import Quota, cpu_s
from bench.scaling import compared


def test_a_process_gets_no_more_than_its_quota_and_goes_on_afterwards() -> None:
    command = [sys.executable, "-c", "print('ready', flush=True)\nwhile True: pass"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            with Quota([process.pid], 0.1):
                before, began = cpu_s(process.pid), time.monotonic()
                time.sleep(2.0)
                share = (cpu_s(process.pid) - before) / (time.monotonic() - began)
            # What it may do while the thread that stops it waits for a busy machine is taken from it afterwards.
            assert 0 < share < 0.3
            before = cpu_s(process.pid)
            deadline = time.monotonic() + 30
            while cpu_s(process.pid) - before < 0.5:
                assert time.monotonic() < deadline, "it is held still"
                time.sleep(0.05)
        finally:
            process.kill()


def test_a_process_that_ends_under_a_quota_is_left_alone() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.2)"])
    with Quota([process.pid], 0.5):
        assert process.wait(30) == 0
        time.sleep(0.1)


def measured(events_per_s: float, cpu_us: float) -> dict[str, float]:
    return {"events_per_s": events_per_s, "cpu_us": cpu_us}


def test_the_ratio_is_of_medians() -> None:
    one = [measured(1_000.0, 20.0), measured(900.0, 20.0), measured(5_000.0, 20.0)]
    two = [measured(1_700.0, 25.0), measured(100.0, 25.0), measured(1_800.0, 25.0)]
    found = compared({1: one, 2: two})
    assert found["ratio"] == pytest.approx(1.7)
    assert found["ratio_of_cpu"] == pytest.approx(1.6)
    assert found["target"]["reached"]
    assert found["workers_2"]["spread"]["runs"] == [1_700, 100, 1_800]
    assert not compared({1: one, 2: [measured(1_599.0, 25.0)]})["target"]["reached"]
