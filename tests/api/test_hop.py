"""Two real workers on one broker: each answers for the other's users, and for itself when the other does not."""

import datetime
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Any

import httpx
import pytest

from api.keys import SCHEMA, KeyList, Scope
from tests.agents.running_worker import HOST, RunningWorker, read_committed
from tests.api.waiting import ready
from topics.groups import members
from topics.partitions import partition_of
from topics.recommendations import Recommended, decode_list
from topics.specs import RECOMMENDATIONS

pytestmark = pytest.mark.broker

TODAY = datetime.date(2026, 1, 2)
#: By name, once there are some.
TOKENS: dict[str, str] = {}
#: The tests are one story, in this order: the last ones stop a worker.
APP, PARTITIONS = "hop-tests", 4


class Worker:
    """A running worker, and how it is asked."""

    def __init__(self, running: RunningWorker, token: str) -> None:
        self.running, self.url = running, f"http://{HOST}:{running.port}"
        self.http = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=20)

    def close(self) -> None:
        self.http.close()

    @property
    def shards(self) -> set[int]:
        answer = self.http.get("/readyz")
        return set(answer.json().get("shards") or ()) if answer.status_code == 200 else set()

    def metric(self, line: str) -> float:
        """The value of a sample by its name and labels, as they stand in the text; 0 if it is not there."""
        for each in self.http.get("/metrics").text.splitlines():
            name, _, value = each.rpartition(" ")
            if name == line:
                return float(value)
        return 0.0

    def user(self, name: str) -> str:
        """An id that this worker owns."""
        shards = self.shards
        return next(f"{name}{n}" for n in range(1000) if partition_of(f"{name}{n}".encode(), PARTITIONS) in shards)

    def listed(self, user_id: str, **query: Any) -> httpx.Response:
        answer = self.http.get(f"/v1/recommend/{user_id}", params=query)
        assert answer.status_code == 200, answer.text
        return answer


@pytest.fixture(scope="module")
def pair(bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Worker, Worker]]:
    """Two workers that ask for keys, each with some of the shards, and something to recommend."""
    folders: list[Path] = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    keys, everything = KeyList(SCHEMA).with_new("everything", Scope, TODAY)
    keys, TOKENS["reader"] = keys.with_new("reader", [Scope.READ], TODAY)
    file = folders[0] / "keys.json"
    file.write_bytes(keys.encode())
    with (
        RunningWorker(bootstrap, folders[0], APP, api_keys=file) as first,
        RunningWorker(bootstrap, folders[1], APP, api_keys=file) as second,
        closing(Worker(first, everything)) as one,
        closing(Worker(second, everything)) as two,
    ):
        ready(first)
        ready(second)
        deadline = time.monotonic() + 60
        while not (one.shards and two.shards and one.shards | two.shards == set(range(PARTITIONS))):
            assert time.monotonic() < deadline, (first.log[-2000:], second.log[-2000:])
            time.sleep(0.1)
        for number in range(40):
            video = {"title": f"film {number}", "categories": ["film" if number % 2 else "clip"]}
            one.http.put(f"/v1/videos/v{number}", json=video).raise_for_status()
        events = [like(f"fan{n % 10}", f"v{(3 * n + n // 10) % 40}") for n in range(100)]
        one.http.post("/v1/events", json=events).raise_for_status()
        yield one, two


def like(user_id: str, video_id: str) -> dict[str, str]:
    return {"user_id": user_id, "video_id": video_id, "event": "like"}


def logged(bootstrap: str, user_id: str) -> list[Recommended]:
    records = [record for record in read_committed(bootstrap, RECOMMENDATIONS) if record.key() == user_id.encode()]
    return [decode_list(record.key(), record.value())[1] for record in records]


def test_what_is_sent_through_one_worker_is_in_its_list_of_a_user_whom_the_other_owns(
    bootstrap: str, pair: tuple[Worker, Worker]
) -> None:
    one, two = pair
    for asked, owner in ((one, two), (two, one)):
        user = owner.user("ann")
        partition = str(partition_of(user.encode(), PARTITIONS))
        assert "v1" in [item["video_id"] for item in asked.listed(user, n=200).json()["items"]]
        offset = asked.http.post("/v1/events", json=like(user, "v1")).json()["offsets"][partition]
        answer = asked.listed(user, n=200, min_offset=offset, wait_ms=5_000)
        body = answer.json()
        assert (body["source"], answer.headers.get("X-Answered-By")) == ("owner", "peer")
        assert body["offset"] >= offset
        # It knows the like: what the user has liked is not listed any more.
        assert "v1" not in [item["video_id"] for item in body["items"]]
        assert asked.metric('headrace_hops_total{outcome="answered"}') >= 2
        assert asked.metric('headrace_answer_age_seconds_count{source="owner"}') >= 1
        known = asked.http.get(f"/v1/users/{user}")
        assert (known.status_code, known.headers.get("X-Answered-By")) == (200, "peer")
        assert [video["video_id"] for video in known.json()["positives"]] == ["v1"]
        assert asked.http.get(f"/v1/users/{owner.user('nobody')}").status_code == 404
        # Each list is in the log once, and the owner has put it there.
        deadline = time.monotonic() + 20
        while len(lists := logged(bootstrap, user)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert [each.recommendation_id for each in lists].count(body["recommendation_id"]) == 1
        assert len(lists) == 2


def test_a_body_with_filters_means_the_same_over_the_hop(pair: tuple[Worker, Worker]) -> None:
    one, two = pair
    user = two.user("bob")
    offsets = one.http.post("/v1/events", json=[like(user, "v3"), like(user, "v4")]).json()["offsets"]
    asked = {
        "user_id": user, "n": 8, "filter": "category == 'film' and not id in ('v5', 'v7')", "exclude": ["v9"], "explore": 0,
        "boosts": [{"filter": "id == 'v11'", "factor": 50}], "diversity": 0.2, "session": ["v2"],
        "min_offset": max(offsets.values()), "wait_ms": 5_000,
    }  # fmt: skip
    bodies = []
    for worker in (two, one, two):
        answer = worker.http.post("/v1/recommend", json=asked)
        assert answer.status_code == 200, answer.text
        assert answer.headers.get("X-Answered-By") == ("peer" if worker is one else None)
        bodies.append(
            {name: value for name, value in answer.json().items() if name not in ("recommendation_id", "as_of_ms")}
        )
    assert bodies[0]["source"] == "owner"
    assert {int(item["video_id"][1:]) % 2 for item in bodies[1]["items"]} == {1}
    # Evidence of the likes may arrive while we ask: then the owner's own two answers differ.
    assert bodies[1] in (bodies[0], bodies[2])
    after = one.http.get("/v1/next/v2", params={"user_id": user})
    assert (after.json()["source"], after.headers.get("X-Answered-By")) == ("owner", "peer")


def test_the_header_of_hops_opens_nothing_and_goes_round_nowhere(pair: tuple[Worker, Worker]) -> None:
    one, two = pair
    user = two.user("carl")
    before = [worker.metric('headrace_hops_total{outcome="answered"}') for worker in pair]
    hop = f"{APP}.v1 {'0' * 32}"
    for path in (f"/v1/recommend/{user}", f"/v1/users/{user}", f"/v1/next/v1?user_id={user}"):
        answer = one.http.get(path, headers={"X-Headrace-Hop": hop})
        assert (answer.status_code, answer.json()["error"]) == (421, "misdirected")
    assert two.http.get(f"/v1/recommend/{user}", headers={"X-Headrace-Hop": hop}).json()["source"] != "replica"
    assert two.http.get(f"/v1/recommend/{user}", headers={"X-Headrace-Hop": "1"}).status_code == 421
    assert [worker.metric('headrace_hops_total{outcome="answered"}') for worker in pair] == before


def test_a_key_is_good_for_what_it_is_on_both_workers(pair: tuple[Worker, Worker]) -> None:
    one, two = pair
    user = two.user("carl")
    token, hop = TOKENS["reader"], f"{APP}.v1 {'1' * 32}"
    for headers in ({"X-API-Key": token}, {"Authorization": f"Bearer {token}"}):
        answer = httpx.get(f"{one.url}/v1/recommend/{user}", headers=headers)
        assert (answer.status_code, answer.headers.get("X-Answered-By")) == (200, "peer")
        for more in ({}, {"X-Headrace-Hop": hop}):
            assert httpx.get(f"{one.url}/v1/users/{user}", headers={**headers, **more}).status_code == 403
            assert httpx.get(f"{two.url}/v1/users/{user}", headers={**headers, **more}).status_code == 403
    for worker in pair:
        assert httpx.get(f"{worker.url}/v1/recommend/{user}", headers={"X-Headrace-Hop": hop}).status_code == 401


def test_an_owner_that_stands_still_is_passed_over_and_then_left_alone(
    bootstrap: str, pair: tuple[Worker, Worker]
) -> None:
    one, two = pair
    user = two.user("dora")
    assert one.listed(user).headers.get("X-Answered-By") == "peer"
    slowest_s = 0.0
    two.running.process.send_signal(SIGSTOP)
    try:
        for _ in range(8):
            began = time.monotonic()
            assert one.listed(user).json()["source"] == "replica"
            slowest_s = max(slowest_s, time.monotonic() - began)
        assert one.metric("headrace_hop_peers_away") == 1
        assert one.metric('headrace_hops_total{outcome="timeout"}') >= 5
        assert one.metric('headrace_hops_total{outcome="open"}') >= 1
    finally:
        two.running.process.send_signal(SIGCONT)
    assert slowest_s < 5
    deadline, late, by_peer = time.monotonic() + 30, 0, 1
    while by_peer < 5:
        assert time.monotonic() < deadline, one.running.log[-3000:]
        if one.listed(user).headers.get("X-Answered-By") == "peer":
            by_peer += 1
        else:
            # It may have been answered, too late: while the owner catches up, or on a machine that is busy.
            late += 1
            time.sleep(0.2)
    while len(logged(bootstrap, user)) < by_peer:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    # What it was asked while it stood still, and nobody waited for, it has not logged as served.
    assert len(logged(bootstrap, user)) <= by_peer + late


def test_a_worker_that_stops_leaves_at_once_and_answers_go_on(bootstrap: str, pair: tuple[Worker, Worker]) -> None:
    one, two = pair
    user = two.user("emma")
    [offset] = one.http.post("/v1/events", json=like(user, "v1")).json()["offsets"].values()
    assert one.listed(user, min_offset=offset, wait_ms=5_000).headers.get("X-Answered-By") == "peer"
    assert members(bootstrap, f"{APP}.v1") == 2
    assert two.running.stop() == 0
    # Long before the broker would miss it.
    assert members(bootstrap, f"{APP}.v1") == 1
    deadline = time.monotonic() + 60
    sources: list[str] = []
    while not sources or sources[-1] != "owner":
        assert time.monotonic() < deadline, one.running.log[-3000:]
        answer = one.listed(user)
        sources.append(answer.json()["source"] if "X-Answered-By" not in answer.headers else "peer")
        time.sleep(0.05)
    assert set(sources) <= {"replica", "owner"}
    assert one.listed(user).json()["offset"] >= offset
