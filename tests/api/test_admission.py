"""Who is let in: keys and scopes, this machine's own browser pages, and clients that ask too often."""

import datetime
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.admission import is_loopback
from api.caller import ANSWERED_BY, HOP_HEADER, new_hop
from api.cors import Cors
from api.guard import Guard
from api.keys import SCHEMA, KeyList, KeyRing, Scope
from infra import metrics
from tests.api.guarded import HOST, GuardedThread, Raw

TODAY = datetime.date(2026, 1, 2)
EVENTS, TRENDING = ("POST", "/v1/events"), ("GET", "/v1/trending")


class Counted:
    """A limiter that keeps what it is asked, and lets through what costs less than `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.asked: list[tuple[str, int]] = []
        self.given_back: list[tuple[str, int]] = []

    def allow(self, client: str, cost: int = 1) -> float:
        self.asked.append((client, cost))
        return 0.0 if cost < self.most else 2.2

    def give_back(self, client: str, cost: int) -> None:
        self.given_back.append((client, cost))


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Tokens by the name of the key, and the file's path under `file`."""
    held, made = KeyList(SCHEMA), {}
    for name, scopes in {"reader": {Scope.READ}, "writer": {Scope.WRITE}, "both": set(Scope)}.items():
        held, made[name] = held.with_new(name, scopes, TODAY)
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    file.write_bytes(held.encode())
    return {**made, "file": str(file)}


@pytest.fixture(scope="module")
def guarded(tokens: dict[str, str]) -> Iterator[GuardedThread]:
    with GuardedThread(Guard(keys=KeyRing(Path(tokens["file"])))) as running:
        yield running


@pytest.fixture(scope="module")
def http(guarded: GuardedThread) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=guarded.url) as client:
        yield client


def refused(why: str) -> float:
    return float(metrics.KEYS_REFUSED.labels(why)._value.get())


@pytest.mark.parametrize(
    ("name", "route", "status"),
    [
        ("reader", TRENDING, 200),
        ("reader", ("HEAD", "/v1/trending"), 200),
        ("reader", EVENTS, 403),
        ("writer", EVENTS, 202),
        # No scope includes another.
        ("writer", TRENDING, 403),
        ("both", TRENDING, 200),
        ("both", EVENTS, 202),
        # Not in the table of scopes: nobody said who may.
        ("reader", ("GET", "/forgotten"), 403),
        ("writer", ("GET", "/forgotten"), 403),
        ("both", ("GET", "/forgotten"), 200),
        # Not there at all: any client learns that.
        ("reader", ("GET", "/nowhere"), 404),
        ("reader", ("DELETE", "/v1/trending"), 405),
    ],
)
def test_a_key_opens_what_its_scopes_say(
    http: httpx.Client, tokens: dict[str, str], name: str, route: tuple[str, str], status: int
) -> None:
    for headers in ({"Authorization": f"Bearer {tokens[name]}"}, {"X-API-Key": tokens[name]}):
        answer = http.request(*route, headers=headers)
        assert answer.status_code == status, answer.text
        if status == 403:
            assert answer.json()["error"] == "missing_scope"
            assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({}, "missing_key"),
        ({"Authorization": "Basic dXNlcjpwYXNz"}, "missing_key"),
        ({"Authorization": "Bearer"}, "wrong_key"),
        ({"Authorization": "Bearer hr_ffffffffffff_" + "A" * 43}, "wrong_key"),
        ({"X-API-Key": "hr_"}, "wrong_key"),
        ({"X-API-Key": "x" * 8_000}, "wrong_key"),
    ],
)
@pytest.mark.parametrize("route", [TRENDING, EVENTS, ("GET", "/nowhere"), ("OPTIONS", "/v1/trending")])
def test_without_a_key_there_is_one_answer_whatever_is_asked(
    http: httpx.Client, headers: dict[str, str], error: str, route: tuple[str, str]
) -> None:
    before = refused(error.removesuffix("_key"))
    answer = http.request(*route, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (401, error)
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert refused(error.removesuffix("_key")) == before + 1


def test_a_key_may_come_as_any_scheme_spells_it(http: httpx.Client, tokens: dict[str, str]) -> None:
    for value in (f"bearer {tokens['reader']}", f"BEARER   {tokens['reader']}"):
        assert http.get("/v1/trending", headers={"Authorization": value}).status_code == 200
    # A proxy's own authorization does not hide ours.
    both = {"Authorization": "Basic dXNlcjpwYXNz", "X-API-Key": tokens["reader"]}
    assert http.get("/v1/trending", headers=both).status_code == 200


def test_a_body_without_a_key_is_not_waited_for(guarded: GuardedThread) -> None:
    with Raw(guarded.address, timeout_s=1.0) as raw:
        raw.send(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n{")
        status, _, _ = raw.answer()
    assert status == 401


def test_keys_may_come_from_any_host_and_origin(http: httpx.Client, tokens: dict[str, str]) -> None:
    headers = {"X-API-Key": tokens["writer"], "Host": "headrace.example", "Origin": "https://site.example"}
    assert http.post("/v1/events", content=b"{}", headers=headers).status_code == 202


@pytest.mark.parametrize("is_open", [False, True])
def test_what_is_counted_is_for_admins_unless_the_operator_opens_it(tokens: dict[str, str], is_open: bool) -> None:
    guard = Guard(keys=KeyRing(Path(tokens["file"])), metrics_open=is_open)
    with GuardedThread(guard) as running, httpx.Client(base_url=running.url) as http:
        for name, sees in {None: is_open, "reader": is_open, "both": True}.items():
            headers = {} if name is None else {"X-API-Key": tokens[name]}
            answer = http.get("/metrics", headers=headers)
            assert answer.status_code == (200 if sees else 401 if name is None else 403)
            ready = http.get("/readyz", headers=headers)
            assert ready.status_code == 200
            assert ready.json() == {"sees_figures": sees}
        # A wrong key is no key, for what needs none.
        assert http.get("/readyz", headers={"X-API-Key": "hr_wrong"}).status_code == 200


@pytest.fixture(scope="module")
def local() -> Iterator[GuardedThread]:
    with GuardedThread(Guard(cors=Cors.parse("https://site.example", with_keys=False))) as running:
        yield running


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:6066", 200),
        ("localhost:1", 200),
        ("[::1]:6066", 200),
        ("rebound.example", 421),
        ("rebound.example:6066", 421),
        ("127.0.0.1.rebound.example", 421),
        ("[::1", 421),
        ("10.0.0.1", 421),
    ],
)
def test_without_keys_only_this_machines_names_are_answered(local: GuardedThread, host: str, status: int) -> None:
    for _ in range(2):
        assert httpx.get(f"{local.url}/v1/trending", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 202),
        ("{own}", 202),
        ("https://site.example", 202),
        ("https://evil.example", 403),
        ("null", 403),
        ("http://127.0.0.1:1", 403),
    ],
)
def test_without_keys_no_page_of_another_origin_changes_anything(
    local: GuardedThread, origin: str | None, status: int
) -> None:
    headers = {} if origin is None else {"Origin": origin.format(own=local.url)}
    # What a page may send without asking first.
    answer = httpx.post(f"{local.url}/v1/events", content=b"{}", headers={"Content-Type": "text/plain", **headers})
    assert answer.status_code == status
    assert httpx.get(f"{local.url}/v1/trending", headers=headers).status_code == 200


def test_a_client_that_asks_too_often_is_told_how_long_to_wait(tokens: dict[str, str]) -> None:
    limiter = Counted(most=100)
    guard = Guard(keys=KeyRing(Path(tokens["file"])), limiter=limiter)
    with GuardedThread(guard) as running, httpx.Client(base_url=running.url) as http:
        both = {"X-API-Key": tokens["both"]}
        assert http.get("/v1/trending", headers=both).status_code == 200
        assert http.post("/v1/events", content=b"{}", headers=both).status_code == 202
        assert http.post("/v1/events", content=b"x" * 20_000, headers=both).status_code == 202
        assert http.get("/v1/trending").status_code == 401
        assert http.get("/readyz").status_code == 200
        # Nobody is charged for asking without a key.
        assert limiter.asked == [("both", 1), ("both", 1), ("both", 2)]
        before = metrics.REQUESTS_LIMITED._value.get()
        answer = http.post("/v1/events", content=b"x" * 2_000_000, headers=both)
        assert (answer.status_code, answer.json()["error"]) == (429, "too_many_requests")
        assert answer.headers["retry-after"] == "3"
        assert limiter.asked[-1] == ("both", 123)
        assert metrics.REQUESTS_LIMITED._value.get() == before + 1
    assert guard.bodies.held_bytes == 0


def test_what_another_worker_has_counted_is_given_back_and_nobody_can_say_so(tokens: dict[str, str]) -> None:
    limiter = Counted(most=100)
    guard = Guard(keys=KeyRing(Path(tokens["file"])), limiter=limiter)
    with GuardedThread(guard) as running, httpx.Client(base_url=running.url) as http:
        headers = {"X-API-Key": tokens["both"], HOP_HEADER: new_hop("headrace.v1"), ANSWERED_BY: "peer"}
        assert http.get("/v1/trending", headers=headers).status_code == 200
        assert (limiter.asked, limiter.given_back) == ([("both", 1)], [])
        assert http.get("/v1/trending?by_peer=1", headers=headers).headers[ANSWERED_BY] == "peer"
        assert (limiter.asked, limiter.given_back) == ([("both", 1)] * 2, [("both", 1)])


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104 - nothing is bound
        ("::", False),
        ("192.168.1.1", False),
        ("", False),
        ("worker.example", False),
        ("localhost.example", False),
    ],
)
def test_what_counts_as_this_machine_alone(host: str, own: bool) -> None:
    assert is_loopback(host) is own


def test_the_server_of_these_tests_is_on_loopback() -> None:
    assert is_loopback(HOST)
