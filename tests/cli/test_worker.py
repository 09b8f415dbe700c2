"""`headrace worker` as an operator starts it: ready, stopped by SIGTERM, and refused where its port is taken."""

import signal
import socket
import urllib.request
from pathlib import Path

import pytest

from tests.agents.running_worker import HOST, RunningWorker

pytestmark = pytest.mark.broker
#: The first start on a machine compiles the models' loops.
READY_TIMEOUT_S = 90.0


def test_a_ready_worker_ends_cleanly_on_sigterm(bootstrap: str, tmp_path: Path) -> None:
    with RunningWorker(bootstrap, tmp_path, "sigterm-test") as worker:
        # The totals of an idle worker may be empty: readiness is asked for itself.
        worker.wait(lambda _: is_ready(worker.port), READY_TIMEOUT_S)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(25) == 0, worker.log
        assert "worker stopped" in worker.log.splitlines()[-1]
        assert "Traceback" not in worker.log


def test_a_taken_port_is_one_line_and_status_1(bootstrap: str, tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with RunningWorker(bootstrap, tmp_path, "port-test", web_port=port) as worker:
            assert worker.process.wait(30) == 1
            assert worker.log == (f"headrace: port {port} of {HOST} is in use: set HEADRACE_WEB_PORT to another\n")


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
