"""A real worker that asks for keys, told how by its settings; and the ones that refuse to start."""

import datetime
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.keys import SCHEMA, KeyList, Scope
from cli.worker_client import WorkerClient, WorkerRefused
from tests.agents.running_worker import HOST, RunningWorker
from tests.api.guarded import Raw

TODAY = datetime.date(2026, 1, 2)
SITE = "https://site.example"


class Keyed:
    """A running worker, and who has which key."""

    def __init__(self, worker: RunningWorker, file: Path) -> None:
        self.worker, self.file = worker, file
        self.url = f"http://{HOST}:{worker.port}"
        self.held = KeyList(SCHEMA)

    def token(self, name: str, *scopes: Scope) -> str:
        self.held, token = self.held.with_new(name, scopes, TODAY)
        self.write()
        return token

    def write(self) -> None:
        beside = self.file.with_suffix(".new")
        beside.write_bytes(self.held.encode())
        beside.replace(self.file)

    def client(self, token: str | None = None) -> httpx.Client:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=10)


@pytest.fixture(scope="module")
def keyed(bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    folder = tmp_path_factory.mktemp("guarded")
    file = folder / "keys.json"
    file.write_bytes(KeyList(SCHEMA).encode())
    settings = {
        "api_keys": file,
        "cors_origins": SITE,
        "access_log": "all",
        "log_format": "json",
        "max_connections": 50,
        # All addresses: what a worker without keys refuses to do.
        "web_host": "0.0.0.0",  # noqa: S104
    }
    with RunningWorker(bootstrap, folder, "guarded-tests", **settings) as worker:
        running = Keyed(worker, file)
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{running.url}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert worker.process.poll() is None, worker.log[-3000:]
            time.sleep(0.1)
        yield running


def until(client: httpx.Client, path: str, status: int, within_s: float = 3.0) -> None:
    deadline = time.monotonic() + within_s
    while (answer := client.get(path)).status_code != status:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.05)


@pytest.mark.broker
def test_keys_are_made_and_revoked_while_it_runs(keyed: Keyed) -> None:
    reader, writer = keyed.token("reader", Scope.READ), keyed.token("writer", Scope.WRITE)
    with keyed.client(reader) as http:
        until(http, "/v1/trending", 200)
        assert http.get("/v1/recommend/u1").status_code == 200
        event = {"user_id": "u1", "video_id": "v1", "event": "like"}
        assert http.post("/v1/events", json=event).status_code == 403
        assert http.put("/v1/videos/v1", json={"title": "one"}).status_code == 403
        assert http.get("/metrics").status_code == 403
    with keyed.client(writer) as http:
        assert http.post("/v1/events", json=event).status_code == 202
        assert http.put("/v1/videos/v1", json={"title": "one"}).status_code == 202
        assert http.get("/v1/recommend/u1").status_code == 403
    keyed.held = keyed.held.without("reader")
    keyed.write()
    with keyed.client(reader) as http:
        until(http, "/v1/trending", 401)


@pytest.mark.broker
def test_readiness_is_open_and_what_is_counted_is_not(keyed: Keyed) -> None:
    ops = keyed.token("ops", Scope.ADMIN)
    with keyed.client() as http:
        assert http.get("/healthz").json() == {"status": "ok"}
        assert http.get("/readyz").json() == {"ready": True}
        assert http.get("/metrics").status_code == 401
    with keyed.client(ops) as http:
        until(http, "/metrics", 200)
        assert set(http.get("/readyz").json()) == {"ready", "shards", "totals"}
        text = http.get("/metrics").text
    assert "headrace_connections " in text
    assert 'headrace_keys_refused_total{why="missing"}' in text


@pytest.mark.broker
def test_the_commands_client_shows_its_key(keyed: Keyed) -> None:
    reader = keyed.token("command", Scope.READ)
    with keyed.client(reader) as http:
        until(http, "/v1/trending", 200)
    client = WorkerClient(keyed.url, key=reader)
    assert client.recommend("nobody", 3)["user_id"] == "nobody"
    client.close()
    keyless = WorkerClient(keyed.url)
    with pytest.raises(WorkerRefused, match="HEADRACE_API_KEY"):
        keyless.recommend("nobody", 3)
    keyless.close()
    environment = {**os.environ, "HEADRACE_API_KEY": reader, "HEADRACE_WEB_PORT": str(keyed.worker.port)}
    command = [sys.executable, "-m", "cli.main", "recommend", "nobody"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "nobody" in done.stdout


@pytest.mark.broker
def test_faust_serves_it_with_all_that_guards_it(keyed: Keyed) -> None:
    with keyed.client() as http:
        asks = {"Origin": SITE, "Access-Control-Request-Method": "POST"}
        first = http.options("/v1/recommend", headers=asks)
        assert (first.status_code, first.headers["access-control-allow-methods"]) == (204, "GET, HEAD, POST")
        answer = http.get("/v1/trending", headers={"Origin": SITE, "X-Request-Id": "trace-0123456789"})
    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == SITE
    assert answer.headers["x-request-id"] == "trace-0123456789"
    assert answer.headers["server"] == "headrace"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.broker
def test_slow_and_many_connections_are_in_no_clients_way(keyed: Keyed) -> None:
    both = keyed.token("busy", Scope.READ, Scope.WRITE)
    half = b"POST /v1/events HTTP/1.1\r\nHost: a\r\nX-API-Key: %s\r\nContent-Length: 1000000\r\n\r\n{" % both.encode()
    address = (HOST, keyed.worker.port)
    stop = threading.Event()
    raws: list[Raw] = []

    def crowd() -> None:
        while not stop.is_set() and len(raws) < 600:
            raws.append(Raw(address))
            if len(raws) <= 20:
                raws[-1].send(half)
            elif len(raws) % 2:
                raws[-1].send(b"GET /v1/recommend/u")
            time.sleep(0.002)

    with keyed.client(both) as http:
        until(http, "/v1/trending", 200)
        crowding = threading.Thread(target=crowd)
        crowding.start()
        try:
            statuses, slowest_s = set(), 0.0
            while crowding.is_alive():
                began = time.monotonic()
                statuses.add(http.get("/v1/recommend/u1").status_code)
                statuses.add(httpx.get(f"{keyed.url}/healthz").status_code)
                slowest_s = max(slowest_s, time.monotonic() - began)
        finally:
            stop.set()
            crowding.join()
            for raw in raws:
                raw.socket.close()
    assert len(raws) == 600
    assert statuses == {200}
    assert slowest_s < 3.0


@pytest.mark.broker
def test_the_log_of_all_this_tells_of_no_person(keyed: Keyed) -> None:
    both = keyed.token("the-site", Scope.READ, Scope.WRITE)
    with keyed.client(both) as http:
        until(http, "/v1/trending", 200)
        for _ in range(2):
            event = {"user_id": "ALICE", "video_id": "HOLIDAY", "event": "like", "session_id": "ALICE"}
            assert http.post("/v1/events", json=event).status_code == 202
            http.post("/v1/events", json={**event, "surprise": "ALICE"})
            http.post("/v1/recommend", json={"user_id": "ALICE", "exclude": ["HOLIDAY"]})
            http.get("/v1/recommend/ALICE?session=HOLIDAY&nonsense=ALICE", headers={"X-Request-Id": "ALICE@mail"})
            http.get("/v1/similar/HOLIDAY")
            http.put("/v1/users/ALICE", json={"country": "ALICE"})
            http.put("/v1/users/ALICE", content=b"{ALICE")
            http.get("/v1/recommend/ALICE", headers={"Authorization": "Bearer hr_ALICE"})
            http.get("/ALICE")
            http.delete("/v1/users/ALICE")
    log = keyed.worker.log
    for route in ("/v1/events", "/v1/users/{user_id}", "/v1/recommend/{user_id}"):
        assert f'"route": "{route}"' in log
    assert '"client": "the-site"' in log
    for private in ("ALICE", "HOLIDAY", both[16:], "hr_", "mail"):
        found = [line for line in log.splitlines() if private in line]
        assert not found, found
    assert HOST not in "".join(line for line in log.splitlines() if '"route"' in line)


@pytest.mark.broker
def test_it_stops_in_time_with_half_a_body_under_way(keyed: Keyed) -> None:
    """The last test of this file: it ends the worker."""
    writer = keyed.token("late", Scope.WRITE)
    with keyed.client(writer) as http:
        until(http, "/v1/trending", 403)
    with Raw((HOST, keyed.worker.port)) as raw:
        raw.send(
            b"POST /v1/events HTTP/1.1\r\nHost: a\r\nX-API-Key: %s\r\nContent-Length: 9\r\n\r\n{" % writer.encode()
        )
        time.sleep(0.2)
        began = time.monotonic()
        assert keyed.worker.stop() == 0, keyed.worker.log[-3000:]
        assert time.monotonic() - began < 15
    assert "worker stopped" in keyed.worker.log
    assert "Traceback" not in keyed.worker.log


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"web_host": "0.0.0.0"},  # noqa: S104 - it must not be bound
            "HEADRACE_WEB_HOST='0.0.0.0' can be reached by others, and no keys are asked for: name a file of keys in "
            "HEADRACE_API_KEYS (`headrace keys create NAME --scope read` makes it), or set HEADRACE_WEB_HOST=127.0.0.1",
        ),
        ({"api_keys": "nowhere.json"}, "HEADRACE_API_KEYS='nowhere.json': No such file"),
        ({"cors_origins": "*"}, "HEADRACE_CORS_ORIGINS='*': * would let every web page"),
        ({"cors_origins": "site.example"}, "HEADRACE_CORS_ORIGINS='site.example': 'site.example' is no origin"),
        ({"access_log": "some"}, "HEADRACE_ACCESS_LOG='some': "),
    ],
)
def test_a_worker_that_would_be_open_to_others_does_not_start(
    tmp_path: Path, settings: dict[str, object], said: str
) -> None:
    # It does not get as far as looking for a broker.
    with RunningWorker(f"{HOST}:1", tmp_path, "open-test", **settings) as worker:
        assert worker.process.wait(60) == 1
        assert worker.log.startswith(f"headrace: {said}")
        assert len(worker.log.splitlines()) == 1
