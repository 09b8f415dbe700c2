"""The live page of a real worker on a real broker, in a real browser."""

import importlib.resources
import re
import time
import tomllib
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from selenium.webdriver.common.keys import Keys

from api.page.views import FOLDER, TYPES
from tests.agents.running_worker import HOST, RunningWorker, handled
from tests.api.browser import Browser, missing

pytestmark = pytest.mark.broker

ROOT = Path(__file__).parent.parent.parent
MARKUP = '<img src=x onerror="document.title=1"><b>bold</b>'


@pytest.fixture(scope="module")
def worker(bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWorker]:
    with RunningWorker(bootstrap, tmp_path_factory.mktemp("page"), "page-tests") as running:
        deadline = time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"http://{HOST}:{running.port}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert running.process.poll() is None, running.log[-3000:]
            assert time.monotonic() < deadline, running.log[-3000:]
            time.sleep(0.1)
        yield running


@pytest.fixture(scope="module")
def http(worker: RunningWorker) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{HOST}:{worker.port}", timeout=10) as client:
        yield client


def post(http: httpx.Client, user_id: str, *video_ids: str, event: str = "like") -> None:
    events = [{"user_id": user_id, "video_id": video_id, "event": event} for video_id in video_ids]
    assert http.post("/v1/events", json=events).json()["accepted"] == len(events)


def remove(http: httpx.Client, video_id: str) -> None:
    """Take a video out again, for the tests that follow."""
    assert http.delete(f"/v1/videos/{video_id}").status_code == 202
    deadline = time.monotonic() + 5
    while http.get("/v1/videos", params={"query": video_id}).json()["items"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def audience(worker: RunningWorker, http: httpx.Client) -> None:
    """Two tastes: cats and cars."""
    rng = np.random.default_rng(4)
    for taste in ("cat", "car"):
        for number in range(14):
            body = {"title": f"{taste.title()} film {number}", "categories": [taste], "duration_seconds": 30 + number}
            assert http.put(f"/v1/videos/{taste}{number}", json=body).status_code == 202
        for fan in range(12):
            post(http, f"{taste}-fan{fan}", *(f"{taste}{n}" for n in rng.permutation(14)[:8]))
    worker.wait(lambda totals: handled(totals) >= 2 * 12 * 8)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if why := missing():
        pytest.skip(why)
    browser = Browser()
    yield browser
    browser.quit()


@pytest.fixture
def browser(chromium: Browser, audience: None) -> Browser:  # noqa: ARG001 - there is something to see
    return chromium


@pytest.fixture
def show(browser: Browser, worker: RunningWorker) -> Callable[..., Browser]:
    """Open the page for a user, and wait for the list."""

    def shown(user: str, **how: Any) -> Browser:
        browser.open(f"http://{HOST}:{worker.port}/#user={user}", **how)
        browser.until("return document.querySelectorAll('#list li').length === 10")
        return browser

    return shown


def ids(browser: Browser, within: str = "#list") -> list[str]:
    found: list[str] = browser.run(
        f"return [...document.querySelectorAll('{within} li')].map((li) => li.dataset.video)"
    )
    return found


def agrees(browser: Browser, http: httpx.Client, asked: dict[str, Any]) -> None:
    """Fail unless the page and the API list the same, but for the last place, which may explore, once all is learned."""
    deadline = time.monotonic() + 10
    while True:
        said = [item["video_id"] for item in http.get("/v1/recommend", params=asked).json()["items"]]
        if ids(browser)[:9] == said[:9]:
            return
        assert time.monotonic() < deadline, (ids(browser), said)
        browser.run("document.getElementById('again').click()")
        browser.until("return !document.getElementById('list').hasAttribute('aria-busy')")


# What is served.


def test_files_have_types_tags_and_a_policy(http: httpx.Client) -> None:
    page = http.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    named = set(re.findall(r'(?:href|src)="(page/[^"]+)"', page.text))
    named |= {f"page/{name}" for name in re.findall(r'from "\./(\w+\.js)"', (FOLDER / "app.js").read_text())}
    assert len(named) >= 5
    for path in ["", *sorted(named)]:
        answer = http.get(f"/{path}")
        assert answer.status_code == 200, path
        assert answer.headers["content-type"] == f"{TYPES[Path(path or 'index.html').suffix]}; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert (policy["script-src"], policy["style-src"], policy["connect-src"]) == ("'self'",) * 3
        again = http.get(f"/{path}", headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == answer.headers["etag"]
        other = http.get(f"/{path}", headers={"If-None-Match": '"another"'})
        assert (other.status_code, other.content) == (200, answer.content)
        head = http.head(f"/{path}")
        assert (head.status_code, head.headers["etag"]) == (200, answer.headers["etag"])


@pytest.mark.parametrize(
    "name", ["nothing.js", "views.py", "__init__.py", "..%2Fviews.py", "%2e%2e%2f%2e%2e%2fpyproject.toml"]
)
def test_nothing_but_the_page_is_served(http: httpx.Client, name: str) -> None:
    answer = http.get(f"/page/{name}")
    assert answer.status_code == 404
    assert answer.json()["error"] == "not_found"


def test_the_page_is_part_of_the_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["api.page"]
    files = {path.name for path in importlib.resources.files("api.page").iterdir() if not path.name.startswith("__")}
    assert "index.html" in files
    assert {name for name in files if not name.endswith(".py") and not any(fnmatch(name, p) for p in patterns)} == set()


# What there is to pick from.


@pytest.mark.usefixtures("audience")
def test_videos_are_found_by_their_words(http: httpx.Client) -> None:
    def found(query: str, n: int = 20) -> list[str]:
        answer = http.get("/v1/videos", params={"query": query, "n": n})
        assert answer.status_code == 200, answer.text
        return [item["video_id"] for item in answer.json()["items"]]

    assert found("CAT fi 3") == ["cat3"]
    assert sorted(found("ca", 100)) == sorted(f"{taste}{n}" for taste in ("cat", "car") for n in range(14))
    assert len(found("ca", 5)) == 5
    assert found("car7") == ["car7"]
    assert http.get("/v1/videos?query=cat3").json()["items"] == [
        {"video_id": "cat3", "title": "Cat film 3", "duration_seconds": 33.0}
    ]
    for query in ("zebra", "%", "\x00", "'", "\ufffd"):
        assert found(query) == [], query
    assert http.get("/v1/videos?query=%ff%ed%a0%80").json() == {"items": []}
    assert http.put("/v1/videos/cat-new", json={"title": "Été à la plage"}).status_code == 202
    deadline = time.monotonic() + 5
    while found("ete PLAGE") != ["cat-new"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert http.delete("/v1/videos/cat-new").status_code == 202
    while found("ete") or found("cat-new"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.usefixtures("audience")
def test_users_that_were_used_last_come_first(http: httpx.Client) -> None:
    deadline = time.monotonic() + 5
    told: list[str] = []
    # A checkpoint uses those whom it writes, so that a user may come before this one once or twice.
    while not told or told[0] != "car-fan3":
        assert time.monotonic() < deadline, told
        assert http.get("/v1/recommend/car-fan3").status_code == 200
        assert http.get("/v1/recommend/never-heard-of").status_code == 200
        told = http.get("/v1/users").json()["user_ids"]
    assert {"cat-fan0", "car-fan11"} <= set(told)
    assert "never-heard-of" not in told
    assert len(http.get("/v1/users?n=3").json()["user_ids"]) == 3


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/v1/videos", "missing_field"), ("/v1/videos?query=", "bad_query"), ("/v1/videos?query=" + "x" * 201, "bad_query"),
        ("/v1/videos?query=a&query=b", "bad_query"), ("/v1/videos?query=a&n=0", "bad_n"), ("/v1/videos?query=a&n=101", "bad_n"),
        ("/v1/videos?query=a&n=1.0", "bad_n"), ("/v1/videos?query=a&n=%C2%B2", "bad_n"), ("/v1/videos?query=a&N=1", "unknown_field"),
        ("/v1/users?n=201", "bad_n"), ("/v1/users?n=", "bad_n"), ("/v1/users?n=-1", "bad_n"), ("/v1/users?n=1&n=2", "bad_n"),
        ("/v1/users?all=1", "unknown_field"), ("/v1/users?n=99999999999999999999", "bad_n"),
    ],
)  # fmt: skip
def test_a_question_that_cannot_be_met_names_the_field(http: httpx.Client, path: str, error: str) -> None:
    answer = http.get(path)
    assert (answer.status_code, answer.json()["error"]) == (400, error), answer.text


@pytest.mark.usefixtures("audience")
def test_a_list_says_how_long_videos_are_and_what_reasons_are_called(http: httpx.Client) -> None:
    items = http.get("/v1/recommend/cat-fan0?n=4").json()["items"]
    assert all(item["duration_seconds"] == 30 + int(item["video_id"][3:]) for item in items)
    named = [reason for item in items for reason in item["reasons"] if "video_id" in reason]
    assert named
    for reason in named:
        taste, number = reason["video_id"][:3], reason["video_id"][3:]
        assert reason["title"] == f"{taste.title()} film {number}"


@pytest.mark.usefixtures("audience")
def test_metrics_say_how_old_lists_are(http: httpx.Client) -> None:
    deadline = time.monotonic() + 5
    while "\nheadrace_state_age_seconds 0.0\n" not in http.get("/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.05)


# In the browser.

#: Press a button of the first entry; milliseconds until its video is off the list and that is on the screen.
PRESS_FIRST = """
  const [action] = given;
  const list = document.getElementById("list");
  const button = list.querySelector(`button[data-action=${action}]`);
  const video = button.closest("li").dataset.video;
  const began = performance.now();
  const gone = new Promise((resolve) => new MutationObserver((_, observer) => {
    if ([...list.children].some((li) => li.dataset.video === video)) return;
    observer.disconnect();
    requestAnimationFrame(() => requestAnimationFrame(() => resolve(performance.now() - began)));
  }).observe(list, { childList: true, subtree: true }));
  button.click();
  return { video, ms: await gone };
"""


def test_a_like_changes_the_list_on_the_screen_within_a_second(
    show: Callable[..., Browser], http: httpx.Client, worker: RunningWorker
) -> None:
    page = show("walker")
    before = ids(page)
    liked = page.run("return document.querySelector('#list li').dataset.video")
    pressed = page.run_async(PRESS_FIRST, "like")
    assert pressed["video"] == liked == before[0]
    assert pressed["ms"] < 1_000, pressed
    after = ids(page)
    assert liked not in after
    assert after != before[1:]
    assert page.run("return document.querySelectorAll('#list .moved:not([hidden])').length") > 0
    said = page.run("return document.getElementById('said').textContent")
    assert re.match(rf"Liked: {liked[:3].title()} film {liked[3:]}\. The list knew of it after \d+ ms: ", said), said
    agrees(page, http, {"user_id": "walker"})
    # Reasons name titles.
    assert page.run("return document.getElementById('list').textContent").count("because you watched") >= 1
    assert not re.search(
        r"because you watched (cat|car)\d", page.run("return document.getElementById('list').textContent")
    )
    requests = page.requests()
    events = [r for r in requests if r["url"].endswith("/v1/events")]
    assert len(events) == 1
    # What was asked for is a list that knows of it.
    then = [r["url"] for r in requests[requests.index(events[0]) :] if "/v1/recommend" in r["url"]]
    assert re.search(r"&min_offset=[1-9]\d*&", then[0])
    sent = httpx.Response(200, text=events[0]["postData"]).json()
    assert set(sent) == {"event_id", "user_id", "video_id", "event", "at_ms", "recommendation_id"}
    assert page.complaints() == []
    assert worker.process.poll() is None


def test_nobody_else_is_asked_and_nothing_is_complained_of(show: Callable[..., Browser], worker: RunningWorker) -> None:
    page = show("cat-fan1")
    for action in ("watch", "like"):
        assert page.run_async(PRESS_FIRST, action)["ms"] < 1_000
    page.run("document.getElementById('query').value = 'cat'; document.querySelector('#search button').click()")
    page.until("return document.querySelectorAll('#found li').length === 10")
    page.until("return document.querySelectorAll('#charts figure').length === 5")
    page.until("return document.querySelector('#connection').dataset.state === 'here'")
    requests = page.requests()
    assert len(requests) > 10
    assert {r["url"].split("/")[2] for r in requests if not r["url"].startswith("data:")} == {f"{HOST}:{worker.port}"}
    [watched] = [r["postData"] for r in requests if '"watch"' in r.get("postData", "")]
    length = re.search(r'"duration_seconds":(\d+)', watched)
    assert length
    assert f'"watch_seconds":{length[1]}' in watched
    assert page.complaints() == []


def test_the_keyboard_is_enough(show: Callable[..., Browser], http: httpx.Client) -> None:
    page = show("cat-fan2")
    page.press(Keys.TAB)
    assert page.run("return document.activeElement.className") == "skip"
    page.press(Keys.ENTER)
    assert page.run("return document.activeElement.id") == "list-title"
    page = show("cat-fan2")
    reached = []
    for _ in range(4):
        page.press(Keys.TAB)
        reached.append(page.run("const a = document.activeElement; return a.id || a.name || a.className || a.tagName"))
    assert reached == ["skip", "SUMMARY", "mode", "user"]
    page.press(*([Keys.BACKSPACE] * 20), "car-fan2", Keys.ENTER)
    page.until("return document.getElementById('said').textContent.startsWith('10 videos')")
    assert page.run("return document.getElementById('list-title').textContent") == "List for car-fan2"
    # On from the field to the third entry's Like, seeing where one is all the way.
    for _ in range(40):
        page.press(Keys.TAB)
        where = page.run(
            "const a = document.activeElement, li = a.closest('#list li');"
            "return [a.dataset.action, li ? [...li.parentNode.children].indexOf(li) : -1, getComputedStyle(a).outlineStyle]"
        )
        assert where[2] != "none", where
        if where[:2] == ["like", 2]:
            break
    assert where[:2] == ["like", 2]
    liked = ids(page)[2]
    page.press(Keys.ENTER)
    page.until(
        "return ![...document.querySelectorAll('#list li')].some((li) => li.dataset.video === arguments[0])", liked
    )
    # The focus is with the entry that took its place, and not on a button that a second Enter would press.
    place = "const li = document.activeElement; return [li.tagName, [...li.parentNode.children].indexOf(li)]"
    assert page.run(place) == ["LI", 2]
    events = handled(http.get("/readyz").json()["totals"])
    page.press(Keys.ENTER)
    page.press(Keys.TAB)
    assert page.run("return document.activeElement.closest('#list li') !== null") is True
    assert page.run("return document.activeElement.dataset.action") == "watch"
    assert handled(http.get("/readyz").json()["totals"]) == events


QUIET_COLOURS = """
  return [...document.querySelectorAll(".chart text, .quiet")].map((e) => getComputedStyle(e)[e.matches("text") ? "fill" : "color"]);
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_either_scheme(show: Callable[..., Browser], scheme: str) -> None:
    page = show("cat-fan3", scheme=scheme)
    page.run("document.getElementById('query').value = 'ca'; document.querySelector('#search button').click()")
    page.until("return document.querySelectorAll('#found li').length === 10")
    page.run_async(PRESS_FIRST, "like")
    page.run("document.getElementById('key-box').open = true")
    axe = (importlib.resources.files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8")
    page.run(axe)
    for mode in ("user", "session"):
        page.run("document.querySelector(`input[value=${arguments[0]}]`).click()", mode)
        page.until("return !document.getElementById('list').hasAttribute('aria-busy')")
        found = page.run_async("return await axe.run(document, {resultTypes: ['violations', 'incomplete']})")
        assert [(v["id"], [n["html"][:200] for n in v["nodes"]]) for v in found["violations"]] == []
        # It cannot tell what is behind text in a drawing: nothing is, and it has the colour of other quiet text.
        unsure = [node["html"][:200] for entry in found["incomplete"] for node in entry["nodes"]]
        assert [html for html in unsure if not html.startswith("<text")] == []
        assert len(set(page.run(QUIET_COLOURS))) == 1
        assert len(found["passes"]) > 20
    ground = page.run("return getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, re.findall(r"\d+", ground)[:3])) > 3 * 128
    assert light is (scheme == "light"), ground


def test_everything_that_acts_has_a_name(show: Callable[..., Browser]) -> None:
    page = show("cat-fan4")
    page.run("document.getElementById('key-box').open = true")
    page.until(
        "return [...document.querySelectorAll('#charts svg title')].filter((title) => title.textContent).length === 5"
    )
    page.command("Accessibility.enable")
    nodes = [node for node in page.command("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    roles = (
        "button",
        "textbox",
        "searchbox",
        "combobox",
        "radio",
        "link",
        "image",
        "list",
        "search",
        "heading",
    )
    named: dict[str, list[str]] = {}
    for node in nodes:
        if node["role"]["value"] in roles:
            named.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    legends = [name for name in named.pop("list") if name]
    assert legends[0].startswith("List for cat-fan4")
    assert all(all(names) for names in named.values()), named
    assert {name for name in named["button"] if "film" in name} == {
        f"{action} {title}"
        for action in ("Watch", "Like", "Skip")
        for title in page.run("return [...document.querySelectorAll('#list .name')].map((name) => name.textContent)")
    }
    # Charts say in words what they show.
    assert len([name for name in named["image"] if re.match(r"[A-Z].*\. .*: (now|nothing known)", name)]) == 5, named[
        "image"
    ]
    assert len([n for n in nodes if n["role"]["value"] == "status"]) == 4


def test_a_narrow_screen_needs_no_scrolling_sideways(show: Callable[..., Browser], http: httpx.Client) -> None:
    http.put("/v1/videos/long", json={"title": "Cat" * 60, "categories": ["cat"]})
    page = show("cat-fan5", width=360, height=740)
    page.run("document.getElementById('key-box').open = true")
    page.run("document.getElementById('query').value = 'catcat'; document.querySelector('#search button').click()")
    page.until("return document.querySelectorAll('#found li').length === 1")
    page.until("return document.querySelectorAll('#charts svg title').length === 5")
    assert page.run("return document.scrollingElement.scrollWidth") <= 360
    small = page.run(
        "return [...document.querySelectorAll('button, input:not([type=radio]), summary')].filter((e) => e.offsetParent)"
        ".map((e) => [e.id || e.textContent, e.getBoundingClientRect()])"
        ".filter(([, r]) => r.height < 24 || r.width < 24 || r.right > 360)"
    )
    assert small == []
    remove(http, "long")


def test_what_is_searched_for_can_be_liked(show: Callable[..., Browser], http: httpx.Client) -> None:
    page = show("searcher")
    page.run("document.getElementById('query').focus()")
    page.press(*"CAR film 1")
    # Without a press of the button: typing is enough.
    page.until("return document.querySelectorAll('#found li').length === 5")
    assert page.run("return document.getElementById('found-said').textContent") == "5 found"
    first = ids(page, "#found")[0]
    page.run("document.querySelector('#found button[data-action=like]').focus()")
    page.press(Keys.ENTER)
    page.until("return document.getElementById('said').textContent.startsWith('Liked')")
    assert page.run("return document.querySelector('#found .done').textContent") == "liked"
    # The focus stays where it was.
    assert page.run("return document.activeElement.closest('#found li').dataset.video") == first
    listed = http.get("/v1/recommend/searcher").json()
    assert listed["source"] == "owner"
    agrees(page, http, {"user_id": "searcher"})
    page.run("document.getElementById('query').value = 'zebra'; document.querySelector('#search button').click()")
    page.until("return document.getElementById('found-said').textContent === 'None found'")
    assert page.complaints() == []


def test_somebody_without_an_account_leaves_no_trace(show: Callable[..., Browser], http: httpx.Client) -> None:
    page = show("cat-fan6")
    events = handled(http.get("/readyz").json()["totals"])
    page.run("document.querySelector('input[value=session]').click()")
    page.until("return document.querySelectorAll('#list li').length === 10")
    assert page.run("return document.getElementById('list-title').textContent") == "List for nobody known"
    assert page.run("return document.querySelectorAll('#list button[data-action=like]:not([hidden])').length") == 0
    page.run("document.getElementById('query').value = 'cat film'; document.querySelector('#search button').click()")
    page.until("return document.querySelectorAll('#found li').length === 10")
    page.requests()
    for number in range(3):
        page.run("document.querySelectorAll('#found li')[arguments[0]].querySelector('button').click()", number)
        page.until("return document.querySelectorAll('#session li').length === arguments[0]", number + 1)
        page.until("return !document.getElementById('list').hasAttribute('aria-busy')")
    page.until("return document.getElementById('about').textContent.startsWith('from what was just watched')")
    watched = ids(page, "#found")[:3]
    listed = ids(page)
    assert not set(listed) & set(watched)
    agrees(page, http, {"session": watched})
    skipped = page.run_async(PRESS_FIRST, "skip")["video"]
    assert skipped not in ids(page)
    page.run("document.querySelector('#session button').click()")
    page.until("return document.querySelectorAll('#session li').length === 2")
    assert all(r["method"] == "GET" for r in page.requests())
    assert handled(http.get("/readyz").json()["totals"]) == events


def test_the_address_names_the_user_and_who_comes_without_one_sees_somebody(show: Callable[..., Browser]) -> None:
    page = show("cat-fan0")
    page.run("document.getElementById('user').value = 'a/b ?&#%é'; document.querySelector('#who button').click()")
    page.until("return document.getElementById('said').textContent.startsWith('10 videos')")
    assert page.run("return document.getElementById('list-title').textContent") == "List for a/b ?&#%é"
    address = page.run("return location.href")
    page.open(address)
    page.until("return document.getElementById('list-title').textContent === 'List for a/b ?&#%é'")
    page.run("location.hash = '#user=cat-fan3'")
    page.until("return document.getElementById('list-title').textContent === 'List for cat-fan3'")
    page.open(address.split("#")[0])
    page.until("return document.getElementById('list-title').textContent.startsWith('List for c')")
    page.until("return document.querySelectorAll('#users option').length > 20")
    assert page.complaints() == []


def test_problems_are_said_in_words(show: Callable[..., Browser]) -> None:
    page = show("cat-fan7")
    page.run("document.getElementById('user').value = 'x'.repeat(129); document.querySelector('#who button').click()")
    page.until("return document.getElementById('said').textContent.includes('user_id must be 1 to 128 bytes')")
    assert page.run("return document.getElementById('said').classList.contains('bad')")
    # Another's list is not there any more: what is pressed in it would be counted for the wrong user.
    assert ids(page) == []
    page.run("document.getElementById('user').value = 'cat-fan7'; document.querySelector('#who button').click()")
    page.until("return document.querySelectorAll('#list li').length === 10")
    assert not page.run("return document.getElementById('said').classList.contains('bad')")


def test_a_worker_that_is_away_is_asked_again(show: Callable[..., Browser], http: httpx.Client) -> None:
    page = show("cat-fan8")
    before = ids(page)
    page.offline(True)
    page.run("document.querySelector('#list button[data-action=like]').click()")
    page.until("return document.getElementById('said').textContent.includes('does not answer')")
    page.until("return document.getElementById('connection').dataset.state === 'away'")
    # What was there is still to be read.
    assert ids(page) == before
    page.offline(False)
    page.until("return document.getElementById('connection').dataset.state === 'here'")
    page.until(
        "return ![...document.querySelectorAll('#list li')].some((li) => li.dataset.video === arguments[0])", before[0]
    )
    # Taken once, though it may have been sent more often.
    assert before[0] not in [item["video_id"] for item in http.get("/v1/recommend/cat-fan8").json()["items"]]


def test_titles_are_text_and_never_markup(show: Callable[..., Browser], http: httpx.Client) -> None:
    assert http.put("/v1/videos/markup", json={"title": MARKUP, "categories": ["cat"]}).status_code == 202
    page = show("cat-fan9")
    deadline = time.monotonic() + 10
    while True:
        page.run("document.getElementById('query').value = 'bold'; document.querySelector('#search button').click()")
        page.until("return document.getElementById('found-said').textContent.endsWith('found')")
        if ids(page, "#found") == ["markup"]:
            break
        assert time.monotonic() < deadline
    assert page.run("return document.querySelector('#found .name').textContent") == MARKUP
    assert page.run("return document.querySelector('#found .name').children.length") == 0
    page.run("document.querySelector('#found button[data-action=like]').click()")
    page.until("return document.getElementById('said').textContent.startsWith('Liked: <img')")
    assert page.run("return [document.title, document.querySelectorAll('img').length]") == ["Headrace live", 0]
    assert page.complaints() == []
    remove(http, "markup")


def test_a_key_is_sent_to_the_worker_and_kept_in_the_tab_alone(show: Callable[..., Browser]) -> None:
    page = show("cat-fan10")
    assert not [r for r in page.requests() if "Authorization" in r["headers"]]
    page.run("document.getElementById('key-box').open = true; document.getElementById('key').focus()")
    page.press("s3cret", Keys.ENTER)
    page.until("return document.getElementById('key-said').textContent === 'The key is used from now on.'")
    page.run("document.getElementById('again').click()")
    page.until("return document.getElementById('said').textContent.startsWith('Asked again')")
    sent = [r for r in page.requests() if "/v1/recommend" in r["url"]]
    assert sent[-1]["headers"]["Authorization"] == "Bearer s3cret"
    assert page.run("return [Object.values(sessionStorage), localStorage.length, document.cookie]") == [
        ["s3cret"],
        0,
        "",
    ]
    assert "s3cret" not in page.run("return location.href")


def test_charts_follow_the_metrics(show: Callable[..., Browser], http: httpx.Client) -> None:
    page = show("cat-fan11")
    page.until("return document.querySelectorAll('#charts svg title').length === 5")
    legend = (
        "const [title, name] = arguments;"
        "const figure = [...document.querySelectorAll('#charts figure')].find((f) => f.querySelector('h3').textContent === title);"
        "const line = [...figure.querySelectorAll('.legend li')].find((li) => li.textContent.trim().startsWith(name + ' '));"
        "return line.querySelector('b').textContent"
    )
    deadline = time.monotonic() + 20
    rates: set[str] = set()
    while not any(re.fullmatch(r"[1-9][\d,.]*", rate) for rate in rates):
        assert time.monotonic() < deadline, rates
        post(http, "busy", *(f"v{n}" for n in range(50)), event="view")
        rates.add(page.run(legend, "Events a second", "learned"))
        rates.add(page.run(legend, "Events a second", "ignored"))
    page.until("return document.querySelector('#charts svg title').textContent.match(/: now [\\d,.]+, from/)")
    assert page.run(legend, "Freshness, seconds", "age")[0].isdigit()
    assert page.run(legend, "Lag, records", "interactions")[0].isdigit()
    assert re.fullmatch(r"[01]\.\d{3}( \(.* popularity\))?", page.run(legend, "Hit rate of ten", "served"))
    page.run_async(PRESS_FIRST, "like")
    page.until(legend.replace("return ", "return /^0\\.\\d+$/.test(") + ")", "Freshness, seconds", "your press")
    # It stays to be read.
    time.sleep(2.5)
    assert page.run(legend, "Freshness, seconds", "your press").startswith("0.")
    drawn = page.run(
        "return [...document.querySelectorAll('#charts path.line-0')].map((path) => path.getAttribute('d'))"
    )
    assert any(path.count("L") >= 1 for path in drawn)


def test_the_page_reads_metrics_as_prometheus_does(show: Callable[..., Browser], http: httpx.Client) -> None:
    page = show("cat-fan11")
    text = http.get("/metrics").text + 'odd{a="x\\"}\\\\\\n,",b="",c="{"} +Inf\nplain_nan NaN 1700000000\n'
    expected = [
        [sample.name, sample.labels, str(float(sample.value))]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]
    found = page.run_async(
        "const { parse } = await import('/page/metrics.js');"
        "return [...parse(given[0])].flatMap(([name, all]) => all.map(({labels, value}) => [name, labels, String(value)]))",
        text,
    )
    names = {"Infinity": "inf", "NaN": "nan"}
    as_read = [[name, labels, names.get(value) or str(float(value))] for name, labels, value in found]
    key = repr
    assert sorted(as_read, key=key) == sorted(expected, key=key)
    assert len(expected) > 100
