"""The client: what comes right by itself is asked again, and never counted twice; what does not is an error with its name."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from infra.kafka_probe import free_port
from ingestion.client import Batcher, Client, Full, ServiceError, interaction

TAKEN = {"accepted": 1, "rejected": [], "offsets": {"0": 1}}
LIST = {"user_id": "a", "recommendation_id": "r", "source": "owner", "as_of_ms": 1, "offset": 2, "items": []}


class Service(BaseHTTPRequestHandler):
    """Answers as the test's script says: (status, body, headers) by the number of the request."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[tuple[str, str, bytes, dict[str, str]]]]
    script: ClassVar[Callable[[int, bytes], tuple[int, object, dict[str, str]]]]

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        number = len(self.asked)
        self.asked.append((self.command, self.path, body, dict(self.headers)))
        status, answer, headers = type(self).script(number, body)
        if status == 0:
            self.close_connection = True  # it goes away before it answers
            return
        data = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - as http.server names them

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def service() -> Iterator[tuple[type[Service], str]]:
    kind = type("Scripted", (Service,), {"asked": [], "script": staticmethod(lambda _n, _b: (200, LIST, {}))})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield kind, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def problem(status: int, error: str) -> tuple[int, object, dict[str, str]]:
    body = {
        "type": f"urn:headrace:problem:{error}",
        "title": "T",
        "status": status,
        "detail": "so it is",
        "error": error,
    }
    return status, body, {"Retry-After": "0"}


@pytest.mark.parametrize("bad", [(503, "unavailable"), (429, "too_many"), (0, "")])
def test_what_comes_right_by_itself_is_asked_again_with_the_same_event(
    service: tuple[type[Service], str], bad: tuple[int, str]
) -> None:
    kind, url = service
    kind.script = staticmethod(lambda number, _body: problem(*bad) if number < 2 else (202, TAKEN, {}))
    assert Client(url).send([interaction("a", "v", "like")]).accepted == 1
    assert len(kind.asked) == 3
    assert len({body for _, _, body, _ in kind.asked}) == 1


def test_a_mistake_is_not_asked_again_and_has_its_name(service: tuple[type[Service], str]) -> None:
    kind, url = service
    kind.script = staticmethod(lambda _number, _body: problem(400, "bad_n"))
    with pytest.raises(ServiceError, match="so it is") as failed:
        Client(url).recommend("a", 10_000)
    assert (failed.value.status, failed.value.error, len(kind.asked)) == (400, "bad_n", 1)


def test_what_stays_away_is_an_error_in_the_end(service: tuple[type[Service], str]) -> None:
    kind, url = service
    kind.script = staticmethod(lambda _number, _body: problem(503, "unavailable"))
    with pytest.raises(ServiceError) as failed:
        Client(url, retries=2).trending()
    assert (failed.value.status, len(kind.asked)) == (503, 3)
    with pytest.raises(ServiceError, match="no answer") as nobody:
        Client(f"http://127.0.0.1:{free_port('127.0.0.1')}", retries=1).trending()
    assert nobody.value.status == 0


def test_names_keys_and_fields_arrive_as_they_are(service: tuple[type[Service], str]) -> None:
    kind, url = service
    client = Client(url + "/", key="hr_secret")
    assert client.recommend("ü/1", 3, session=["v1"]).offset == 2
    client.next("a b?/é", "u&1", 4)
    assert kind.asked[0][:2] == ("POST", "/v1/recommend")
    assert json.loads(kind.asked[0][2]) == {"user_id": "ü/1", "n": 3, "session": ["v1"]}
    assert kind.asked[1][:2] == ("GET", "/v1/next/a%20b%3F%2F%C3%A9?n=4&user_id=u%261")
    assert all(headers["Authorization"] == "Bearer hr_secret" for *_, headers in kind.asked)


def test_what_is_no_headrace_is_said_to_be_none(service: tuple[type[Service], str]) -> None:
    kind, url = service
    kind.script = staticmethod(lambda _number, _body: (200, ["hello"], {}))
    with pytest.raises(ServiceError, match="no Headrace"):
        Client(url).trending()


def test_many_events_go_in_parts_and_their_answers_are_one(service: tuple[type[Service], str]) -> None:
    kind, url = service

    def take(number: int, body: bytes) -> tuple[int, object, dict[str, str]]:
        events = json.loads(body)
        rejected = [{"index": 3, "reason": "bad_time", "detail": "d"}] if number == 1 else []
        return 202, {"accepted": len(events) - len(rejected), "rejected": rejected, "offsets": {str(number): 7}}, {}

    kind.script = staticmethod(take)
    taken = Client(url).send([interaction("a", f"v{n}", "view") for n in range(2_300)])
    assert (taken.accepted, taken.offsets) == (2_299, {"0": 7, "1": 7, "2": 7})
    assert [each.index for each in taken.rejected] == [1_003]


def test_a_batcher_sends_all_in_order_in_few_requests(service: tuple[type[Service], str]) -> None:
    kind, url = service
    kind.script = staticmethod(
        lambda _n, body: (202, {"accepted": len(json.loads(body)), "rejected": [], "offsets": {}}, {})
    )
    with Batcher(Client(url), most=100, linger_s=0.2) as batcher:
        for number in range(1_050):
            batcher.send("a", f"v{number}", "view")
    sent = [event["video_id"] for *_, body, _ in kind.asked for event in json.loads(body)]
    assert sent == [f"v{number}" for number in range(1_050)]
    assert len(kind.asked) <= 13
    with pytest.raises(RuntimeError, match="closed"):
        batcher.send("a", "v", "like")


def test_a_lone_event_does_not_wait_for_company(service: tuple[type[Service], str]) -> None:
    kind, url = service
    kind.script = staticmethod(lambda _n, _b: (202, TAKEN, {}))
    batcher = Batcher(Client(url), linger_s=0.01)
    batcher.send("a", "v", "like")
    deadline = time.monotonic() + 5
    while not kind.asked:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    batcher.close()


def test_what_is_not_taken_is_told_and_the_rest_goes_on(service: tuple[type[Service], str]) -> None:
    kind, url = service

    def take(number: int, body: bytes) -> tuple[int, object, dict[str, str]]:
        if number == 0:
            return problem(400, "malformed_json")
        rejected = [{"index": 0, "reason": "bad_time", "detail": "d"}] if number == 1 else []
        return 202, {"accepted": len(json.loads(body)) - len(rejected), "rejected": rejected, "offsets": {}}, {}

    told: list[tuple[list[str], str]] = []

    def tell(events: Any, why: str) -> None:
        told.append(([event.video_id for event in events], why))
        if len(told) == 1:
            raise RuntimeError("whoever is told fails too")

    kind.script = staticmethod(take)
    with Batcher(Client(url), tell, most=2) as batcher:
        for number in range(6):
            batcher.send("a", f"v{number}", "view")
    assert told == [(["v0", "v1"], "so it is (malformed_json)"), (["v2"], "bad_time: d")]
    assert len(kind.asked) == 3


def test_what_waits_is_bounded(service: tuple[type[Service], str]) -> None:
    kind, url = service
    go = threading.Event()

    def stall(_number: int, body: bytes) -> tuple[int, object, dict[str, str]]:
        go.wait(10)
        return 202, {"accepted": len(json.loads(body)), "rejected": [], "offsets": {}}, {}

    kind.script = staticmethod(stall)
    batcher = Batcher(Client(url), most=5, linger_s=0.0, room=10, patience_s=0.05)
    with pytest.raises(Full, match="10 events wait"):  # noqa: PT012 - one of them finds no room
        for number in range(100):
            batcher.send("a", f"v{number}", "view")
    go.set()
    batcher.close()
    sent = [event["video_id"] for *_, body, _ in kind.asked for event in json.loads(body)]
    assert sent == [f"v{number}" for number in range(len(sent))]
    assert 10 <= len(sent) < 100
