"""`headrace simulate`: events at a steady rate, of now, which a worker can learn; and lists meanwhile."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from cli.worker_process import worker_environment
from infra.kafka_probe import free_port
from tests.agents.running_worker import HOST, latest, read_committed
from topics.interactions import decode_value
from topics.specs import INTERACTIONS, VIDEOS

pytestmark = pytest.mark.broker
#: Of nobody else who shares the broker: it stands in the ids of events.
SEED = 424_242


@pytest.fixture
def asked() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """A server that is no worker, and what it was asked: path with user, and key."""
    requests: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append((f"{self.path} {asked['user_id']}", self.headers.get("Authorization")))
            self.send_error(503)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with HTTPServer((HOST, 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{HOST}:{server.server_port}", requests
        server.shutdown()


def simulate(bootstrap: str, home: Path, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    environment = worker_environment(bootstrap, home, free_port(HOST), {"app": "simulate", **settings})
    return subprocess.run(
        [sys.executable, "-m", "cli.main", "simulate", *arguments],
        env=environment, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip


def test_events_are_of_now_and_lists_that_fail_stop_nothing(
    bootstrap: str, tmp_path: Path, asked: tuple[str, list[tuple[str, str | None]]]
) -> None:
    url, requests = asked
    began_ms = int(time.time() * 1000)
    arguments = ["--events", "100", "--rate", "500", "--users", "7", "--videos", "9", "--ask", url]
    first = simulate(bootstrap, tmp_path, *arguments, api_key="hr_secret", seed=SEED)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("100 events confirmed")
    assert "hr_secret" not in first.stderr
    ours = [
        decode_value(value)
        for message in read_committed(bootstrap, INTERACTIONS)
        if f"-{SEED}-".encode() in (value := message.value() or b"")
    ]
    assert len(ours) == len({event.event_id for event in ours}) == 100
    assert all(began_ms <= event.at_ms <= time.time() * 1000 for event in ours)
    stored = {key for _, key in latest(read_committed(bootstrap, VIDEOS))}
    assert {f"video-{number}".encode() for number in range(9)} <= stored
    assert len(requests) == 10
    assert all(path.startswith("/v1/recommend user-") and key == "Bearer hr_secret" for path, key in requests)
