"""Which pages of other origins may ask, and what their browsers are told."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.cors import BadOrigins, Cors
from api.guard import Guard
from api.keys import SCHEMA, KeyList, KeyRing
from tests.api.guarded import GuardedThread

SITE = "https://site.example"
ASKS = {"Origin": SITE, "Access-Control-Request-Method": "GET"}


def cors_headers(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    cors = Cors.parse(f" {SITE}, http://localhost:3000,", with_keys=False)
    with GuardedThread(Guard(cors=cors)) as running, httpx.Client(base_url=running.url) as client:
        yield client


def test_a_browser_that_asks_first_is_told_what_its_page_may(http: httpx.Client) -> None:
    asks = {"Origin": SITE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    answer = http.options("/v1/events", headers=asks)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == SITE
    assert answer.headers["access-control-allow-methods"] == "POST"
    assert "X-API-Key" in answer.headers["access-control-allow-headers"]
    assert "Authorization" in answer.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["vary"] == "Origin"
    # What views answer is not asked.
    assert answer.content == b""


@pytest.mark.parametrize("origin", [SITE, "http://localhost:3000"])
def test_a_page_that_may_ask_sees_the_answer_and_what_it_needs_of_its_headers(http: httpx.Client, origin: str) -> None:
    answer = http.get("/v1/trending", headers={"Origin": origin})
    assert answer.headers["access-control-allow-origin"] == origin
    assert set(answer.headers["access-control-expose-headers"].split(", ")) == {"Retry-After", "X-Request-Id"}
    # What went wrong is for the page, too.
    assert http.get("/nowhere", headers={"Origin": origin}).headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize("origin", ["https://evil.example", "http://site.example", f"{SITE}.evil.example", "null", ""])
def test_other_pages_see_nothing(http: httpx.Client, origin: str) -> None:
    answer = http.get("/v1/trending", headers={"Origin": origin})
    assert cors_headers(answer) == {}
    assert answer.headers["vary"] == "Origin"
    first = http.options("/v1/trending", headers={**ASKS, "Origin": origin})
    assert first.status_code == 403
    assert cors_headers(first) == {}


def test_an_answer_to_nobodys_page_says_that_it_depends_on_that(http: httpx.Client) -> None:
    assert http.get("/v1/trending").headers["vary"] == "Origin"


def test_options_without_a_page_is_no_method_of_ours(http: httpx.Client) -> None:
    assert http.options("/v1/trending").status_code == 405
    assert http.options("/nowhere", headers=ASKS).status_code == 404


def test_without_origins_nothing_is_said() -> None:
    with GuardedThread() as running:
        for answer in (
            httpx.get(f"{running.url}/v1/trending", headers={"Origin": SITE}),
            httpx.options(f"{running.url}/v1/trending", headers=ASKS),
        ):
            assert cors_headers(answer) == {}
            assert "vary" not in answer.headers


def test_a_browser_asks_first_without_a_key(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(KeyList(SCHEMA).encode())
    guard = Guard(keys=KeyRing(file), cors=Cors.parse("*", with_keys=True))
    with GuardedThread(guard) as running:
        first = httpx.options(f"{running.url}/v1/trending", headers=ASKS)
        assert (first.status_code, first.headers["access-control-allow-origin"]) == (204, "*")
        assert "vary" not in first.headers
        assert httpx.get(f"{running.url}/v1/trending", headers={"Origin": SITE}).status_code == 401


@pytest.mark.parametrize(
    "text",
    [
        "site.example",
        "https://site.example/",
        "https://Site.example",
        "https://*.site.example",
        "null",
        "https://a.example https://b.example",
        "ftp://site.example",
        "https://site.example:",
        "*",
        f"{SITE},*",
    ],
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(BadOrigins):
        Cors.parse(text, with_keys=False)


def test_every_page_may_be_allowed_where_keys_are_asked_for() -> None:
    assert Cors.parse("*", with_keys=True).allows("https://anything.example")
    assert not Cors.parse("", with_keys=True).enabled
