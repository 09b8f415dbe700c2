"""Two workers change to another version and back under constant requests: no request fails, and one of them is away at a time."""

import http.client
import json
import select
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from cli.taking_turns import RECENT_S, TURN_S, Turns
from cli.worker_process import worker_environment
from infra.embedded_kafka import EmbeddedKafka
from ingestion.produce import produce_events, produce_videos
from ingestion.simulate import Audience
from tests.agents.running_worker import HOST, RunningWorker
from topics.groups import members
from topics.specs import ensure_topics, specs
from topics.versions import read_active

APP = "bluegreen"
#: Few, as the test is of changes and not of load: two a worker.
CLIENTS = 4
broker = pytest.mark.broker


class Client(threading.Thread):
    """Asks a worker again and again over a connection that stays open, as long as the worker lets it."""

    def __init__(self, port: int, number: int) -> None:
        super().__init__(daemon=True)
        self.port, self.number = port, number
        self.over = threading.Event()
        self.failures: list[str] = []
        self.answers: Counter[str] = Counter()
        self.connections = 0
        self.longest_s = 0.0

    def run(self) -> None:
        connection: http.client.HTTPConnection | None = None
        for n in range(1_000_000):
            if self.over.wait(0.03):
                break
            if connection is not None and closed_between(connection):
                connection.close()
                connection = None
            if connection is None:
                connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
                self.connections += 1
            began = time.monotonic()
            try:
                status, body = self.ask(connection, n)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                connection.close()
                connection = None
                continue
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            self.answers[f"{status} {body.get('source', '')}"] += 1
            if status not in (200, 202):
                self.failures.append(f"{status}: {body}")
        if connection is not None:
            connection.close()

    def ask(self, connection: http.client.HTTPConnection, n: int) -> tuple[int, dict[str, object]]:
        if n % 10 == 9:
            event = {"user_id": f"u{self.number}", "video_id": f"v{n % 50}", "event": "watch", "watch_seconds": 20}
            connection.request("POST", "/v1/events", json.dumps(event), {"Content-Type": "application/json"})
        else:
            connection.request("GET", f"/v1/recommend/u{n % 40}?n=5")
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def closed_between(connection: http.client.HTTPConnection) -> bool:
    """Whether the connection has ended since the last answer, which every client looks at before it asks again."""
    return connection.sock is None or bool(select.select([connection.sock], [], [], 0)[0])


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka")) as running:
        yield running.bootstrap


def command(bootstrap: str, home: Path, *arguments: str) -> str:
    """What `headrace` says; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=worker_environment(bootstrap, home, 1, {"app": APP}),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def away(log: str) -> list[tuple[datetime, datetime]]:
    """From when until when a worker was away for a restart, of each one."""
    began, found = None, []
    for line in log.splitlines():
        if "worker restarts" in line:
            began = datetime.fromisoformat(line.split()[0])
        elif "worker ready" in line and began is not None:
            found.append((began, datetime.fromisoformat(line.split()[0])))
            began = None
    assert began is None
    return found


@broker
@pytest.mark.timeout(300)
def test_no_request_fails_when_workers_change_to_a_version_and_back(
    kafka: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    ensure_topics(kafka, specs(APP, "v1", 4))
    audience = Audience(5, 60, 40)
    produce_videos(kafka, audience.videos())
    produce_events(kafka, list(audience.events(600)))
    with RunningWorker(kafka, tmp_path / "a", APP) as first, RunningWorker(kafka, tmp_path / "b", APP) as second:
        workers = (first, second)
        for each in workers:
            each.wait(lambda _, each=each: "worker ready" in each.log, 120)  # type: ignore[misc] # a default binds it
        first.wait(lambda _: members(kafka, f"{APP}.v1") == 2)
        clients = [Client(workers[n % 2].port, n) for n in range(CLIENTS)]
        for client in clients:
            client.start()
        said = command(kafka, tmp_path / "a", "replay", "--from-beginning")
        assert "Version v2 has taken over, workers: 2" in said
        assert (members(kafka, f"{APP}.v1"), members(kafka, f"{APP}.v2")) == (0, 2)
        before = {id(client): client.answers.total() for client in clients}
        said = command(kafka, tmp_path / "a", "versions", "--rollback")
        assert "Version v1 takes over from v2" in said
        assert "Version v1 has taken over, workers: 2" in said
        active = read_active(kafka, APP)
        assert active is not None
        assert (active.version, active.previous) == ("v1", "v2")
        for each in workers:
            each.wait(lambda _, each=each: each.log.count("worker ready") == 3, 60)  # type: ignore[misc]
        after = {id(client): client.answers.total() for client in clients}
        first.wait(
            lambda _: all(client.answers.total() > after[id(client)] or client.failures for client in clients), 30
        )
        for client in clients:
            client.over.set()
            client.join(60)
        assert [client.failures for client in clients] == [[]] * CLIENTS
        assert all(after[key] > before[key] > 0 for key in before)
        # A connection ended between two requests at each change, and not more often.
        assert all(2 <= client.connections <= 3 for client in clients), [client.connections for client in clients]
        spans = [away(each.log) for each in workers]
        assert [len(each) for each in spans] == [2, 2]
        for first_one, second_one in zip(*spans, strict=True):
            earlier, later = sorted((first_one, second_one))
            # On a machine that is so slow, the later one is right not to wait for ever.
            waited_out = (later[0] - earlier[0]).total_seconds() > TURN_S
            assert earlier[1] <= later[0] or waited_out, spans
        answers = sum((client.answers for client in clients), Counter())
        record_property("answers", dict(answers))
        record_property("longest_s", round(max(client.longest_s for client in clients), 2))


class Clock:
    """Time that passes as told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def turns(own: str, through: set[str], clock: Clock) -> Callable[..., bool]:
    """Whether it is our turn, asked as often as it takes to hear of those before us."""
    taking = Turns(own, through.__contains__, clock)

    def ours(others: set[str], *, ready: bool = True, wanted: bool = True) -> bool:
        for _ in range(3):
            if taking.ours(others, ready=ready, wanted=wanted):
                return True
            clock.now += 1.0
            taking._threads.submit(int).result(10)  # what was asked before is answered
        return False

    return ours


def test_the_first_goes_at_once_and_the_next_when_it_is_through() -> None:
    through: set[str] = set()
    assert turns("a", through, Clock())({"b", "c"})
    ours = turns("b", through, Clock())
    assert not ours({"a", "c"}, wanted=False)
    assert not ours({"a", "c"})
    through.add("a")  # it answers, and has not left: its old life
    assert not ours({"a", "c"})
    through.clear()
    assert not ours({"c"})
    through.add("a")
    assert not ours({"c"}, ready=False)
    assert ours({"c"})


def test_one_that_does_not_come_back_holds_up_for_a_bounded_time() -> None:
    clock = Clock()
    ours = turns("c", set(), clock)
    assert not ours({"a", "b"})
    clock.now = 100.0 + 2 * TURN_S - 5
    assert not ours({"a", "b"})
    clock.now = 100.0 + 2 * TURN_S
    assert ours({"a", "b"})


def test_one_that_left_before_we_knew_of_the_change_is_waited_for() -> None:
    clock, through = Clock(), set[str]()
    ours = turns("b", through, clock)
    assert not ours({"a"}, wanted=False)
    assert not ours(set())
    through.add("a")
    assert ours(set())
    clock.now += RECENT_S
    assert not ours(set(), wanted=False)
    through.clear()
    assert ours(set())  # long gone
