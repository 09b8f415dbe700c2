"""An experiment in a real worker: arms in answers, in the log and in what is counted, through a restart and a take-over."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.experiment_file import parse
from tests.agents.running_worker import HOST, RunningWorker, read_committed
from topics.interactions import decode_value
from topics.recommendations import Recommended, decode_list
from topics.specs import INTERACTIONS, RECOMMENDATIONS

pytestmark = pytest.mark.broker

DEFINED = json.dumps(
    {
        "name": "kinds",
        "arms": [
            {"name": "control", "share": 1, "preset": {"explore": 0}},
            {"name": "cats", "share": 1, "preset": {"explore": 0, "filter": "category == 'cat'"}},
        ],
    }
)
USERS = [f"visitor{n}" for n in range(160)]
Lists = dict[str, tuple[str, Recommended]]


@contextmanager
def worker(bootstrap: str, home: Path, file: Path, shards: int = 4) -> Iterator[tuple[RunningWorker, httpx.Client]]:
    with (
        RunningWorker(bootstrap, home, "experiment-tests", experiment=file) as running,
        httpx.Client(base_url=f"http://{HOST}:{running.port}", timeout=10) as http,
    ):
        ready(running, http, shards)
        yield running, http


def ready(running: RunningWorker, http: httpx.Client, shards: int, within_s: float = 60.0) -> None:
    """Wait until the worker owns so many shards."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            answer = http.get("/readyz")
            if answer.status_code == 200 and len(answer.json()["shards"]) == shards:
                return
        except httpx.TransportError:
            pass
        assert running.process.poll() is None, running.log[-3000:]
        assert time.monotonic() < deadline, running.log[-3000:]
        time.sleep(0.1)


def report(http: httpx.Client) -> dict[str, Any]:
    answer = http.get("/v1/experiments")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def arms(http: httpx.Client) -> dict[str, dict[str, Any]]:
    return {arm["name"]: arm for arm in report(http)["arms"]}


def counts(http: httpx.Client) -> dict[str, tuple[float, ...]]:
    names = ("lists", "hits", "shown", "clicks", "positives", "watch_seconds")
    return {name: tuple(arm[each] for each in names) for name, arm in arms(http).items()}


def wait_for(http: httpx.Client, expected: dict[str, tuple[float, ...]], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while (found := counts(http)) != expected:
        assert time.monotonic() < deadline, (found, expected)
        time.sleep(0.05)


def logged(bootstrap: str) -> Lists:
    """Lists of the visitors by recommendation id, with whose they are."""
    records = read_committed(bootstrap, RECOMMENDATIONS)
    lists = [decode_list(r.key(), r.value()) for r in records if (r.key() or b"").startswith(b"visitor")]
    return {listed.recommendation_id: (key.decode(), listed) for key, listed in lists}


def recount(bootstrap: str) -> dict[str, tuple[float, ...]]:
    """One list a user; no client here says what it shows."""
    events: dict[str, dict[str, tuple[bool, bool, float]]] = {}
    known = set()
    for record in read_committed(bootstrap, INTERACTIONS):
        if not (record.key() or b"").startswith(b"visitor"):
            continue
        event = decode_value(record.value() or b"")
        if (event.user_id, event.event_id) in known:
            continue
        known.add((event.user_id, event.event_id))
        long = event.event == "like" or (event.watch_seconds or 0.0) >= 18.0
        clicked, liked, seconds = events.setdefault(event.user_id, {}).get(event.video_id, (False, False, 0.0))
        clicked |= long or event.event == "view" or (event.watch_seconds or 0.0) >= 7.0
        events[event.user_id][event.video_id] = clicked, liked or long, seconds + (event.watch_seconds or 0.0)
    found: dict[str, list[float]] = {"control": [0.0] * 6, "cats": [0.0] * 6}
    for user, listed in logged(bootstrap).values():
        followed = [events.get(user, {}).get(video, (False, False, 0.0)) for video in listed.video_ids]
        clicks = sum(clicked for clicked, _, _ in followed)
        more = (
            1, clicks > 0, len(listed.video_ids), clicks, sum(liked for _, liked, _ in followed),
            sum(seconds for *_, seconds in followed),
        )  # fmt: skip
        found[listed.arm] = [one + other for one, other in zip(found[listed.arm], more, strict=True)]
    return {name: tuple(sums) for name, sums in found.items()}


def visit(http: httpx.Client, number: int, user: str) -> dict[str, Any]:
    """A list for the user, and what they do: some nothing, some skip, some watch or like, once or twice over."""
    body = dict(http.get(f"/v1/recommend/{user}", params={"n": 6}).json())
    videos = [item["video_id"] for item in body["items"]]
    event = {"event_id": f"v{number}", "user_id": user, "video_id": videos[number % 6]}
    followed: list[dict[str, object]] = [
        [], [{**event, "event": "skip"}], [{**event, "event": "watch", "watch_seconds": 20.5}],
        [{**event, "event": "like"}, {**event, "event": "like"}], [{**event, "event": "watch", "watch_seconds": 2.0}],
        [{**event, "event": "view"}, {**event, "event_id": f"w{number}", "event": "watch", "watch_seconds": 8.0}],
    ][number % 6 if number % 5 else 2]  # fmt: skip
    if followed:
        assert http.post("/v1/events", json=followed).status_code == 202
    return body


@pytest.mark.timeout(180)
def test_arms_from_the_answer_to_the_figures(bootstrap: str, tmp_path: Path) -> None:
    file = tmp_path / "experiment.json"
    file.write_text(DEFINED)
    experiment = parse(DEFINED.encode())
    with worker(bootstrap, tmp_path / "a", file) as (first, http):
        for taste in ("cat", "car"):
            for number in range(12):
                video = {"title": f"{taste} film {number}", "categories": [taste]}
                assert http.put(f"/v1/videos/{taste}{number}", json=video).status_code == 202
        likes = [{"user_id": f"fan{n % 12}", "video_id": f"car{n % 11}", "event": "like"} for n in range(60)]
        assert http.post("/v1/events", json=likes).status_code == 202
        deadline = time.monotonic() + 10
        while len(http.get("/v1/trending?n=100").json()["items"]) < 24:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        answers = {user: visit(http, number, user) for number, user in enumerate(USERS)}
        # The answer's arm is the user's, and the log's; arms make other lists.
        of_cats: dict[str, list[bool]] = {"control": [], "cats": []}
        for user, body in answers.items():
            assert body["arm"] == experiment.arm_of(user).name
            of_cats[body["arm"]] += [item["video_id"].startswith("cat") for item in body["items"]]
        assert all(of_cats["cats"])
        assert not all(of_cats["control"])
        deadline = time.monotonic() + 10
        while len(lists := logged(bootstrap)) < len(USERS):
            assert time.monotonic() < deadline
        for body in answers.values():
            assert lists[body["recommendation_id"]][1].arm == body["arm"]
            assert lists[body["recommendation_id"]][1].experiment == experiment.id
        assert http.get("/v1/recommend").json()["arm"] is None
        assert http.get("/v1/next/cat1", params={"user_id": USERS[0]}).json()["arm"] == experiment.arm_of(USERS[0]).name
        # That was one list more.
        deadline = time.monotonic() + 10
        while len(logged(bootstrap)) < len(USERS) + 1:
            assert time.monotonic() < deadline
        expected = recount(bootstrap)
        assert sum(arm[0] for arm in expected.values()) == len(USERS) + 1
        wait_for(http, expected)
        whole = report(http)
        assert (whole["experiment"], whole["late"], whole["short"]) == ("kinds", 0, 0)
        control, cats_ = whole["arms"]
        assert (control["name"], control["share"], control["to_control"]) == ("control", 0.5, None)
        hit_rate = cats_["figures"]["hit_rate"]
        assert hit_rate["value"] == pytest.approx(expected["cats"][1] / expected["cats"][0], abs=1e-6)
        assert 0.0 < hit_rate["low"] < hit_rate["value"] < hit_rate["high"] < 1.0
        more = cats_["to_control"]["hit_rate"]
        assert more["low"] < more["difference"] < more["high"]
        assert 0.0 < more["p_value"] < 1.0
        check_metrics(http, expected)
        assert waiting(http) == len(USERS) + 1
        # Another worker joins, takes shards over, and then all.
        with worker(bootstrap, tmp_path / "b", file, shards=2) as (second, other):
            assert first.stop() == 0, first.log[-3000:]
            ready(second, other, 4)
            assert counts(other) == expected
            left = report(other)
            assert (left["late"], left["short"]) == (0, len(USERS) + 1)
            assert waiting(other) == 0
            visit(other, 1_002, "visitor-of-b")
            deadline = time.monotonic() + 10
            while len(logged(bootstrap)) < len(USERS) + 2:
                assert time.monotonic() < deadline
            wait_for(other, recount(bootstrap))
            assert second.stop() == 0, second.log[-3000:]
        # With an empty disk, too.
        with worker(bootstrap, tmp_path / "c", file) as (_, third):
            assert counts(third) == recount(bootstrap)


def waiting(http: httpx.Client) -> int:
    return sum(int(arm["waiting"]) for arm in report(http)["arms"])


def check_metrics(http: httpx.Client, expected: dict[str, tuple[float, ...]]) -> None:
    lines = dict(
        line.rsplit(" ", 1) for line in http.get("/metrics").text.splitlines() if line.startswith("headrace_experiment")
    )
    names = ("lists", "hits", "shown", "clicks", "positives", "watch_seconds")
    for arm, sums in expected.items():
        for name, value in zip(names, sums, strict=True):
            assert float(lines[f'headrace_experiment_count{{arm="{arm}",measure="{name}"}}']) == value
    found = {arm["name"]: arm["figures"]["ctr"] for arm in report(http)["arms"]}
    for arm, figure in found.items():
        for bound, value in figure.items():
            line = lines[f'headrace_experiment_figure{{arm="{arm}",bound="{bound}",figure="ctr"}}']
            assert float(line) == pytest.approx(value, abs=1e-6)
    assert 0.0 < float(lines['headrace_experiment_larger_ratio{arm="cats",figure="hit_rate"}']) < 1.0
