"""The HTTP interface of a real worker on a real broker."""

import json
import time
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from confluent_kafka import Producer

from online_models.heads import INPUTS
from tests.agents.running_worker import HOST, RunningWorker, handled, read_committed
from topics.dead_letter import parse_dead_letter
from topics.recommendations import Recommended, decode_list, hash_names
from topics.specs import DEAD, INTERACTIONS, RECOMMENDATIONS, producer_config

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def worker(bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWorker]:
    with RunningWorker(bootstrap, tmp_path_factory.mktemp("api"), "http-tests") as running:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"http://{HOST}:{running.port}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert running.process.poll() is None, running.log[-3000:]
            time.sleep(0.1)
        yield running


@pytest.fixture
def http(worker: RunningWorker) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{HOST}:{worker.port}", timeout=10) as client:
        yield client


def post(http: httpx.Client, *events: dict[str, object]) -> dict[str, int]:
    """Send events; the next offset by partition."""
    answer = http.post("/v1/events", json=list(events))
    assert answer.status_code == 202, answer.text
    assert answer.json()["accepted"] == len(events)
    return {str(partition): offset for partition, offset in answer.json()["offsets"].items()}


def like(user_id: str, video_id: str) -> dict[str, object]:
    return {"user_id": user_id, "video_id": video_id, "event": "like"}


def listed(http: httpx.Client, user_id: str, offset: int = 0, within_s: float = 1.0) -> list[str]:
    """The user's list as soon as it includes everything below `offset`; fails after `within_s`."""
    deadline = time.monotonic() + within_s
    while True:
        answer = http.get(f"/v1/recommend/{user_id}")
        assert answer.status_code == 200, answer.text
        body = answer.json()
        if body["offset"] >= offset:
            return [item["video_id"] for item in body["items"]]
        assert time.monotonic() < deadline, f"offset {body['offset']} after {within_s} s, wanted {offset}"
        time.sleep(0.01)


def until(http: httpx.Client, user_id: str, video_id: str, *, there: bool, within_s: float = 1.0) -> None:
    """Wait until the video is in the user's list, or is not."""
    deadline = time.monotonic() + within_s
    while (video_id in listed(http, user_id)) is not there:
        assert time.monotonic() < deadline, f"{video_id} {'not ' if there else ''}in the list after {within_s} s"
        time.sleep(0.01)


def mean_score(http: httpx.Client, taste: str, video_id: str) -> float:
    """The video's score in the lists of the taste's fans; it must be in each."""
    scores = []
    for fan in range(12):
        items = http.get(f"/v1/recommend/{taste}-fan{fan}?n=20").json()["items"]
        [score] = [item["score"] for item in items if item["video_id"] == video_id]
        scores.append(score)
    return float(np.mean(scores))


@pytest.fixture(scope="module")
def audience(worker: RunningWorker) -> None:
    """Two tastes: cats and cars."""
    rng = np.random.default_rng(4)
    with httpx.Client(base_url=f"http://{HOST}:{worker.port}", timeout=10) as http:
        for taste in ("cat", "car"):
            for number in range(12):
                body = {"title": f"{taste} film {number}", "categories": [taste]}
                assert http.put(f"/v1/videos/{taste}{number}", json=body).status_code == 202
            for fan in range(12):
                # In no common order: else it is the order that is learned.
                post(http, *(like(f"{taste}-fan{fan}", f"{taste}{n}") for n in rng.permutation(12)[:9]))
        worker.wait(lambda totals: handled(totals) >= 2 * 12 * 9)
        time.sleep(1.0)  # the evidence hop


@pytest.mark.usefixtures("audience")
def test_known_unknown_similar_and_trending(http: httpx.Client) -> None:
    deadline = time.monotonic() + 10
    while True:
        # Evidence of the last likes may still be under way.
        known = http.get("/v1/recommend/cat-fan0?n=3").json()
        if all(item["video_id"].startswith("cat") for item in known["items"]) or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    assert known["source"] == "owner"
    assert known["user_id"] == "cat-fan0"
    assert len(known["recommendation_id"]) == 32
    assert all(item["video_id"].startswith("cat") and item["reasons"] for item in known["items"])
    assert abs(known["as_of_ms"] - time.time() * 1000) < 5_000
    unknown = http.get("/v1/recommend/nobody").json()
    assert unknown["source"] == "trending"
    assert len(unknown["items"]) == 10
    assert all(item["video_id"].startswith("car") for item in http.get("/v1/similar/car1?n=5").json()["items"])
    assert len(http.get("/v1/trending?n=4").json()["items"]) == 4


@pytest.mark.usefixtures("audience")
def test_a_like_changes_the_same_users_list_within_a_second(http: httpx.Client) -> None:
    before = listed(http, "walker")
    [offset] = post(http, like("walker", "car3")).values()
    after = listed(http, "walker", offset)
    assert after != before
    # Two hundred likes teach the ranker little: something else may be among them.
    assert sum(video.startswith("car") for video in after[:5]) >= 4, after
    assert "car3" not in after


@pytest.mark.usefixtures("audience")
def test_a_new_video_reaches_its_taste_within_a_second_and_goes_with_its_deletion(http: httpx.Client) -> None:
    assert http.put("/v1/videos/cat-new", json={"title": "one more cat film", "categories": ["cat"]}).status_code == 202
    until(http, "cat-fan1", "cat-new", there=True)
    # Its place tells nothing: where all that was liked was new, the ranker learns that the new is liked.
    assert mean_score(http, "cat", "cat-new") > mean_score(http, "car", "cat-new") + 1
    assert http.delete("/v1/videos/cat-new").status_code == 202
    until(http, "cat-fan1", "cat-new", there=False)
    assert http.get("/v1/similar/cat-new").status_code == 404
    assert http.delete("/v1/videos/never-there").status_code == 202


def test_accepted_and_rejected_events_of_one_request(http: httpx.Client) -> None:
    answer = http.post("/v1/events", json=[like("a", "v"), {"user_id": "a"}, {**like("a", "v"), "event": "zap"}])
    assert answer.status_code == 202
    body = answer.json()
    assert body["accepted"] == 1
    assert [(entry["index"], entry["reason"]) for entry in body["rejected"]] == [
        (1, "missing_field"),
        (2, "unknown_event"),
    ]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'[{"user_id":"a","video_id":"v","event":"watch","watch_seconds":NaN}]', 400),
        (b"[" * 100_000, 400),
        (json.dumps([like("a", "v")] * 1001).encode(), 400),
        (json.dumps({**like("a" * 129, "v")}).encode(), 400),
        (json.dumps({**like("a", "v"), "at_ms": 99_999_999_999_999}).encode(), 400),
        (json.dumps({**like("a", "v"), "surprise": 1}).encode(), 400),
        (b" " * 3_000_000, 413),
    ],
)
def test_a_bad_body_is_named_and_the_next_request_is_served(http: httpx.Client, content: bytes, status: int) -> None:
    answer = http.post("/v1/events", content=content)
    assert answer.status_code == status
    assert set(answer.json()) == {"type", "title", "status", "detail", "error"}
    assert http.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/recommend/a?n=0", 400),
        ("GET", "/v1/recommend/a?n=201", 400),
        ("GET", "/v1/recommend/a?n=²", 400),
        ("GET", f"/v1/recommend/{'x' * 129}", 400),
        ("GET", "/v1/recommend/%FF", 200),
        ("GET", "/v1/similar/never-seen", 404),
        ("GET", "/nowhere", 404),
        ("POST", "/v1/trending", 405),
        ("PUT", "/v1/videos/x", 400),
    ],
)
def test_a_bad_request_is_an_answer_in_json(http: httpx.Client, method: str, path: str, status: int) -> None:
    answer = http.request(method, path)
    assert answer.status_code == status, answer.text
    if status == 200:
        assert answer.headers["content-type"].startswith("application/json")
        answer.json()
        return
    # RFC 9457.
    assert answer.headers["content-type"].startswith("application/problem+json")
    body = answer.json()
    assert (body["status"], body["type"]) == (status, f"urn:headrace:problem:{body['error']}")
    assert body["title"] == answer.reason_phrase
    assert body["detail"]


@pytest.mark.usefixtures("audience")
def test_an_answer_waits_for_what_it_must_include(http: httpx.Client) -> None:
    for n in range(10):
        [offset] = post(http, like("reader", f"car{n}")).values()
        body = http.get(f"/v1/recommend/reader?min_offset={offset}&wait_ms=5000").json()
        assert body["offset"] >= offset
        assert f"car{n}" not in [item["video_id"] for item in body["items"]]
    began = time.monotonic()
    body = http.get(f"/v1/recommend/reader?min_offset={offset + 10_000}&wait_ms=300").json()
    assert 0.3 <= time.monotonic() - began < 2.0
    # It says itself that it does not.
    assert body["offset"] < offset + 10_000


@pytest.mark.usefixtures("audience")
def test_somebody_without_an_account_gets_a_list_for_what_they_have_just_watched(http: httpx.Client) -> None:
    for taste in ("cat", "car"):
        session = [f"{taste}0", f"{taste}1", f"{taste}2"]
        body = http.post("/v1/recommend", json={"session": session, "n": 5}).json()
        assert (body["source"], body["user_id"], body["offset"]) == ("session", None, 0)
        listed_ = [item["video_id"] for item in body["items"]]
        assert not set(listed_) & set(session)
        assert sum(video.startswith(taste) for video in listed_) >= 4, listed_
        asked = "&".join(f"session={video}" for video in session)
        assert http.get(f"/v1/recommend?n=5&{asked}").json()["source"] == "session"
    assert http.get("/v1/recommend").json()["source"] == "trending"
    assert http.post("/v1/recommend", json={"user_id": "cat-fan1"}).json()["source"] == "owner"


@pytest.mark.usefixtures("audience")
def test_a_list_has_what_it_is_asked_to_have(http: httpx.Client) -> None:
    videos = {
        "long-cat": {"title": "long", "categories": ["Cat"], "language": "no", "duration_seconds": 900},
        "old-cat": {"title": "old", "categories": ["cat"], "duration_seconds": 20, "published_ms": 86_400_000},
    }
    for video_id, body in videos.items():
        assert http.put(f"/v1/videos/{video_id}", json=body).status_code == 202
        until(http, "cat-fan5", video_id, there=True, within_s=5.0)
    for query, expected in {
        "languages=NO": ["long-cat"],
        "min_duration_seconds=60": ["long-cat"],
        "categories=CAT&max_duration_seconds=20.5": ["old-cat"],
        "published_after_ms=1&categories=car&categories=cat": ["old-cat"],
        "languages=xx": [],
    }.items():
        items = http.get(f"/v1/recommend/cat-fan5?{query}").json()["items"]
        assert [item["video_id"] for item in items] == expected, query
    items = http.post("/v1/recommend", json={"user_id": "car-fan5", "categories": ["cat"], "n": 9}).json()["items"]
    assert len(items) == 9
    assert all("cat" in item["video_id"] for item in items)
    for video_id in videos:
        assert http.delete(f"/v1/videos/{video_id}").status_code == 202
        until(http, "cat-fan5", video_id, there=False, within_s=5.0)


@pytest.mark.usefixtures("audience")
def test_what_is_excluded_is_in_no_list(http: httpx.Client) -> None:
    first = [item["video_id"] for item in http.get("/v1/recommend/cat-fan2?n=5").json()["items"]]
    asked = {"user_id": "cat-fan2", "n": 5, "exclude": [*first, "never-heard-of"]}
    then = [item["video_id"] for item in http.post("/v1/recommend", json=asked).json()["items"]]
    assert len(then) == 5
    assert not set(then) & set(first)


@pytest.mark.usefixtures("audience")
def test_pages_go_on_where_the_one_before_ended(http: httpx.Client) -> None:
    seen: list[str] = []
    asked: dict[str, object] = {"user_id": "cat-fan2", "n": 7}
    while True:
        answer = http.post("/v1/recommend", json=asked).json()
        seen += [item["video_id"] for item in answer["items"]]
        if answer["next_cursor"] is None:
            break
        asked["cursor"] = answer["next_cursor"]
    everything = http.get("/v1/recommend/cat-fan2?n=200").json()
    assert everything["next_cursor"] is None
    assert len(set(seen)) == len(seen)
    assert set(seen) == {item["video_id"] for item in everything["items"]}
    page = http.get("/v1/recommend/cat-fan2", params={"n": 7, "offset": 7, "explore": 0}).json()["items"]
    assert page == http.get("/v1/recommend/cat-fan2?n=14&explore=0").json()["items"][7:]


@pytest.mark.usefixtures("audience")
def test_what_is_next_goes_on_from_the_video(http: httpx.Client) -> None:
    after = http.get("/v1/next/car1?n=5").json()
    assert after["source"] == "session"
    assert all(item["video_id"].startswith("car") for item in after["items"][:3])
    assert "car1" not in {item["video_id"] for item in after["items"]}
    for_fan = http.get("/v1/next/car1", params={"n": 5, "user_id": "cat-fan4"}).json()
    assert (for_fan["source"], for_fan["user_id"]) == ("owner", "cat-fan4")
    assert any(item["video_id"].startswith("car") for item in for_fan["items"])
    assert http.get("/v1/next/never-heard-of").status_code == 404
    assert http.get("/v1/next/car1?nn=1").status_code == 400
    full = "&".join(f"session=v{n}" for n in range(20))
    assert http.get(f"/v1/next/car1?{full}").json()["error"] == "bad_session"


@pytest.mark.usefixtures("audience")
def test_a_request_can_filter_boost_and_mix(http: httpx.Client) -> None:
    cats = http.get(
        "/v1/recommend/car-fan5", params={"n": 5, "filter": "category == 'cat' and id not in ('cat1', 'cat2')"}
    )
    assert {item["video_id"][:3] for item in cats.json()["items"]} == {"cat"}
    rules = [{"filter": "category == 'car'", "factor": 1000}, {"filter": "category == 'cat'", "factor": 0.001}]
    lifted = http.get(
        "/v1/recommend/cat-fan5",
        params={"n": 3, "explore": 0, "boost": [f"{rule['factor']}:{rule['filter']}" for rule in rules]},
    ).json()
    assert {item["video_id"][:3] for item in lifted["items"]} == {"car"}
    same = http.post(
        "/v1/recommend",
        json={"user_id": "cat-fan5", "n": 3, "explore": 0, "boosts": rules},
    ).json()
    assert same["items"] == lifted["items"]
    capped = http.get("/v1/recommend/cat-fan5?n=10&max_per_category=1&explore=0").json()["items"]
    categories = [item["video_id"][:3] for item in capped if item["video_id"][:3] in ("cat", "car")]
    assert len(categories) == len(set(categories))


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("nn=3", "unknown_field"), ("n=1&n=2", "bad_n"), ("n=-1", "bad_n"), ("min_offset=x", "bad_min_offset"),
        ("wait_ms=5001", "bad_wait_ms"), ("min_duration_seconds=nan", "bad_min_duration_seconds"),
        ("max_duration_seconds=-1", "bad_max_duration_seconds"), ("published_after_ms=soon", "bad_published_after_ms"),
        ("languages=", "bad_languages"), ("&".join(f"categories=c{n}" for n in range(65)), "bad_categories"),
        ("exclude=", "bad_exclude"), ("session=" + "x" * 129, "bad_session"), ("session=" + "%C3%A6" * 65, "bad_id"),
        ("&".join(f"session=v{n}" for n in range(21)), "bad_session"), ("user_id=b", "bad_user_id"),
        ("offset=801", "bad_offset"), ("cursor=AQ", "bad_cursor"), ("cursor=AQ&offset=1", "bad_offset"),
        ("diversity=2", "bad_diversity"),
        ("rotation=-0.1", "bad_rotation"), ("explore=inf", "bad_explore"), ("max_per_author=0", "bad_max_per_author"),
        ("filter=duration+<", "bad_filter"), ("filter=" + "x" * 1_001, "bad_filter"), ("boost=category=='cat'", "bad_boost"),
        ("boost=2:", "bad_boosts"), ("boost=0:category=='cat'", "bad_boosts"), ("boost=2:category", "bad_boosts"),
        ("&".join(["boost=2:plays>1"] * 11), "bad_boosts"), ("scenario=none", "bad_scenario"),
    ],
)  # fmt: skip
def test_a_query_that_cannot_be_met_names_the_field(http: httpx.Client, query: str, error: str) -> None:
    answer = http.get(f"/v1/recommend/a?{query}")
    assert (answer.status_code, answer.json()["error"]) == (400, error), answer.text


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "malformed_json"), (b"[", "malformed_json"), (b"[]", "wrong_type"), (b'{"n":"3"}', "bad_n"),
        (b'{"n":1e400}', "malformed_json"), (b'{"exclude":"a"}', "bad_exclude"), (b'{"exclude":[""]}', "bad_exclude"),
        (b'{"exclude":[7]}', "bad_exclude"), (b'{"user_id":""}', "bad_id"), (b'{"filter":1}', "bad_filter"),
        (b'{"filters":1}', "unknown_field"), (b'{"boosts":[{"filter":"plays > 1"}]}', "bad_boosts"),
        (b'{"scenario":1}', "bad_scenario"),
        (b'{"session":["\xff"]}', "malformed_json"), (b'{"user_id":"\\ud800"}', "malformed_json"),
        (b"[" * 5_000, "malformed_json"), (b'{"n"', "malformed_json"),
    ],
)  # fmt: skip
def test_a_body_that_cannot_be_met_names_the_field(http: httpx.Client, body: bytes, error: str) -> None:
    answer = http.post("/v1/recommend", content=body)
    assert (answer.status_code, answer.json()["error"]) == (400, error), answer.text
    assert http.get("/healthz").status_code == 200


def test_a_user_can_be_looked_at_and_erased(http: httpx.Client) -> None:
    http.put("/v1/videos/known-film", json={"title": "A known film", "categories": ["film"], "author": "somebody"})
    http.put("/v1/users/leaver", json={"country": "no", "attributes": {"device": "tv"}})
    taken = http.post("/v1/events", json=like("leaver", "known-film")).json()
    offset = max(taken["offsets"].values())
    assert http.get(f"/v1/recommend/leaver?min_offset={offset}&wait_ms=5000").json()["source"] == "owner"
    deadline = time.monotonic() + 5
    while True:
        known = http.get("/v1/users/leaver").json()
        if known["categories"] and known["segments"]:
            break
        assert time.monotonic() < deadline, known
        time.sleep(0.05)
    assert known["events"] == {"like": 1}
    assert known["positives"] == [{"video_id": "known-film", "title": "A known film"}]
    assert (known["categories"], known["authors"]) == ({"film": 1}, {"somebody": 1})
    assert known["segments"] == ["country:no", "device=tv"]
    assert http.delete("/v1/users/leaver").status_code == 202
    while http.get("/v1/users/leaver").status_code != 404:
        assert time.monotonic() < deadline + 5
        time.sleep(0.05)
    assert http.get("/v1/recommend/leaver").json()["source"] == "trending"
    assert http.get("/v1/users/never-heard-of").status_code == 404
    assert http.put("/v1/users/leaver", json={"erased_ms": 1}).json()["error"] == "bad_erased_ms"


def test_users_and_videos_are_checked_before_they_are_stored(http: httpx.Client) -> None:
    assert http.put("/v1/users/u1", json={"language": "en", "segments": ["a"]}).status_code == 202
    refused = http.put("/v1/users/u1", json={"language": 7})
    assert (refused.status_code, refused.json()["error"]) == (400, "wrong_type")
    assert http.put("/v1/videos/x", json={"titel": "x"}).json()["error"] == "unknown_field"


@pytest.mark.usefixtures("audience")
def test_what_is_served_is_logged_with_what_was_known_and_read_by_the_worker(
    http: httpx.Client, bootstrap: str
) -> None:
    answer = http.get("/v1/recommend/cat-fan3?n=5").json()
    deadline = time.monotonic() + 10
    mine: list[Recommended] = []
    while not mine:
        assert time.monotonic() < deadline, "the list is not in the log"
        lists = [decode_list(m.key(), m.value()) for m in read_committed(bootstrap, RECOMMENDATIONS)]
        mine = [served for key, served in lists if served.recommendation_id == answer["recommendation_id"]]
    [served] = mine
    assert served.video_ids == [item["video_id"] for item in answer["items"]]
    assert served.source == "owner"
    assert served.names == hash_names(INPUTS)
    matrix = served.matrix()
    assert matrix is not None
    assert matrix.shape == (5, len(INPUTS))
    while metric(http, 'headrace_exposures{outcome="listed"}') < 1:
        assert time.monotonic() < deadline, "the worker has not read it"
        time.sleep(0.05)
    assert metric(http, 'headrace_exposures{outcome="unreadable"}') == 0
    waiting = metric(http, "headrace_exposures_waiting")
    post(http, {"user_id": "cat-fan3", "video_id": served.video_ids[1], "event": "impression"})
    while metric(http, "headrace_exposures_waiting") <= waiting:
        assert time.monotonic() < deadline, "the impression is not waited for"
        time.sleep(0.05)


def metric(http: httpx.Client, name: str) -> float:
    """Value of a metric as it is scraped."""
    [line] = [line for line in http.get("/metrics").text.splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[-1])


def test_health_readiness_and_metrics(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    ready = http.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["shards"] == [0, 1, 2, 3]
    text = http.get("/metrics").text
    for name in ("headrace_events", "headrace_lag_records", "headrace_checkpoint_seconds", "headrace_request_seconds"):
        assert f"\n{name}" in text
    assert 'route="/v1/trending"' in text or http.get("/v1/trending").status_code == 200
    assert "walker" not in text


def test_a_malformed_record_is_a_dead_letter_and_the_next_is_learned(worker: RunningWorker, bootstrap: str) -> None:
    before = worker.totals()
    producer = Producer(producer_config(bootstrap))
    producer.produce(INTERACTIONS, b"\xff{nonsense", key=b"dead-user")
    good = {"event_id": "after", "user_id": "dead-user", "video_id": "v", "event": "like", "at_ms": 1_600_000_000_000}
    producer.produce(INTERACTIONS, json.dumps(good).encode(), key=b"dead-user")
    assert producer.flush(10) == 0
    after = worker.wait(lambda totals: handled(totals) >= handled(before) + 2)
    assert after.get("dead", 0) - before.get("dead", 0) == 1
    assert after["learned"] - before["learned"] == 1
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        letters = [
            parse_dead_letter(m.key(), m.value(), m.headers())  # type: ignore[arg-type] # consumers give lists of bytes
            for m in read_committed(bootstrap, DEAD)
        ]
        mine = [letter for letter in letters if letter.key == b"dead-user"]
        if mine:
            break
    assert [(letter.reason, letter.topic, letter.value) for letter in mine] == [
        ("malformed_json", INTERACTIONS, b"\xff{nonsense")
    ]
