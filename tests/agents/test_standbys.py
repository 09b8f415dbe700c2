"""Copies of shards that others own: what is answered from them, and that a take-over goes on from them. Real workers, one broker."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from agents.checkpoint import ShardTopics
from agents.standbys import Standbys
from agents.takeover import changelog_consumer
from state.errors import StateError, TopicReplaced
from state.standby import Standby
from state.store import RocksStore, Row
from tests.agents.running_worker import HOST, RunningWorker, handled, read_committed
from topics.partitions import partition_of
from topics.specs import INTERACTIONS, ensure_topics, specs

pytestmark = pytest.mark.broker

PARTITIONS, VIDEOS = 4, 30


def url(worker: RunningWorker) -> str:
    return f"http://{HOST}:{worker.port}"


def until(what: Callable[[], Any], worker: RunningWorker, timeout_s: float = 60.0) -> Any:
    """What it returns, as soon as that is something."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if found := what():
                return found
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise AssertionError(worker.log[-3000:])


def is_ready(worker: RunningWorker) -> bool:
    return httpx.get(url(worker) + "/readyz", timeout=5).status_code == 200


def shards(worker: RunningWorker) -> list[int]:
    answer = httpx.get(url(worker) + "/readyz", timeout=5)
    return list(answer.json().get("shards", [])) if answer.status_code == 200 else []


def like(user_id: str, video_id: str) -> dict[str, Any]:
    return {"user_id": user_id, "video_id": video_id, "event": "like"}


def listed(worker: RunningWorker, user_id: str, **query: Any) -> dict[str, Any]:
    answer = httpx.get(f"{url(worker)}/v1/recommend/{user_id}", params=query, timeout=20)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def fill(worker: RunningWorker) -> None:
    """A catalogue, and a few users who like some of it."""
    with httpx.Client(base_url=url(worker), timeout=20) as http:
        for number in range(VIDEOS):
            video = {"title": f"film {number}", "categories": ["film" if number % 2 else "clip"]}
            http.put(f"/v1/videos/v{number}", json=video).raise_for_status()
        events = [like(f"fan{n % 10}", f"v{(3 * n + n // 10) % VIDEOS}") for n in range(100)]
        assert http.post("/v1/events", json=events).json()["accepted"] == 100


class Pair:
    """A worker that learns, one that serves, and what they share."""

    def __init__(self, learner: RunningWorker, server: RunningWorker) -> None:
        self.learner, self.server = learner, server


@pytest.fixture(scope="module")
def pair(bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with (
        RunningWorker(bootstrap, tmp_path_factory.mktemp("learn"), "roles", role="learn") as learner,
        RunningWorker(bootstrap, tmp_path_factory.mktemp("serve"), "roles", role="serve") as server,
    ):
        until(lambda: is_ready(learner), learner)
        until(lambda: is_ready(server), server)
        fill(server)
        learner.wait(lambda totals: totals.get("learned", 0) == 100)
        yield Pair(learner, server)


def test_who_learns_answers_no_clients_but_their_operator(pair: Pair) -> None:
    with httpx.Client(base_url=url(pair.learner)) as http:
        refused = http.get("/v1/recommend/fan1")
        assert refused.status_code == 421
        assert "HEADRACE_ROLE=learn" in refused.json()["detail"]
        assert http.post("/v1/events", json=like("fan1", "v1")).status_code == 421
        assert http.get("/healthz").status_code == 200
        assert "headrace_shards 4.0" in http.get("/metrics").text


def test_who_serves_owns_nothing_and_reads_its_own_writes(pair: Pair) -> None:
    server = pair.server
    assert shards(server) == []
    for number in range(5):
        user = f"newcomer{number}"
        assert listed(server, user)["source"] == "trending"
        taken = httpx.post(url(server) + "/v1/events", json=[like(user, f"v{number}"), like(user, f"v{number + 7}")])
        offset = taken.json()["offsets"][str(partition_of(user.encode(), PARTITIONS))]
        found = listed(server, user, min_offset=offset, wait_ms=5_000)
        assert found["source"] == "standby"
        assert found["offset"] >= offset
        videos = [item["video_id"] for item in found["items"]]
        assert videos
        assert f"v{number}" not in videos, "what was liked is seen"
    known = httpx.get(url(server) + "/v1/users/newcomer3").json()
    assert [each["video_id"] for each in known["positives"]] == ["v10", "v3"]
    assert httpx.get(url(server) + "/v1/users/nobody-knows").status_code == 404


def test_a_list_from_a_copy_is_logged_as_any_other(pair: Pair) -> None:
    def learned() -> float:
        text = httpx.get(url(pair.learner) + "/metrics").text
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in text.splitlines()
            if line.startswith('headrace_exposures{outcome="listed"}')
        )

    before = learned()
    for _ in range(5):
        listed(pair.server, "fan1")
    until(lambda: learned() >= before + 5, pair.learner)


def test_lists_go_on_while_nobody_learns_and_say_how_old_they_are(pair: Pair, bootstrap: str, tmp_path: Path) -> None:
    server = pair.server
    pair.learner.kill()
    sent = httpx.post(url(server) + "/v1/events", json=[like(f"fan{n}", f"v{n}") for n in range(10)])
    assert sent.status_code == 202
    time.sleep(1.0)
    first = listed(server, "fan1")
    assert first["source"] == "standby"
    later = until(lambda: listed(server, "fan1") if time.time() * 1000 - found_ms(server) > 1_500 else None, server)
    assert later["as_of_ms"] == first["as_of_ms"], "nothing has been learned since"
    with RunningWorker(bootstrap, tmp_path, "roles", role="learn") as successor:
        until(lambda: listed(server, "fan1")["as_of_ms"] > first["as_of_ms"], successor)
        successor.wait(lambda totals: handled(totals) == in_the_log(bootstrap))


def found_ms(worker: RunningWorker) -> int:
    return int(listed(worker, "fan1")["as_of_ms"])


def restored(worker: RunningWorker) -> dict[int, int]:
    """Rows that were read from changelogs for each shard, the last time it was taken over."""
    lines = [json.loads(line) for line in worker.log.splitlines() if line.startswith("{")]
    return {line["shard"]: line["rows_read"] for line in lines if line["event"] == "shard restored"}


def test_a_take_over_goes_on_from_the_copy(bootstrap: str, tmp_path: Path) -> None:
    settings = {"standby": True, "log_format": "json"}
    with RunningWorker(bootstrap, tmp_path / "one", "warm", **settings) as one:
        until(lambda: is_ready(one), one)
        fill(one)
        one.wait(lambda totals: handled(totals) == in_the_log(bootstrap))
        with RunningWorker(bootstrap, tmp_path / "two", "warm", **settings) as two:
            until(lambda: shards(one) and shards(two), two)
            moved = shards(one)
            first = restored(two)
            assert all(first[shard] > 0 for shard in shards(two)), "an empty disk is filled from the log"
            until(lambda: copies(two) == len(moved), two)
            liked = [like(f"fan{n}", f"v{(n + 11) % VIDEOS}") for n in range(10)]
            assert httpx.post(url(two) + "/v1/events", json=liked).json()["accepted"] == 10
            until(lambda: handled(one.totals()) + handled(two.totals()) == in_the_log(bootstrap), two)
            time.sleep(1.5)  # a checkpoint, and what the copies lack of it
            one.kill()
            until(lambda: len(shards(two)) == PARTITIONS, two)
            second = restored(two)
            assert {shard: second[shard] for shard in moved} == dict.fromkeys(moved, 0), "nothing was left to read"
            assert listed(two, "fan1")["source"] == "owner"
            two.wait(lambda totals: handled(totals) == in_the_log(bootstrap))


def copies(worker: RunningWorker) -> int:
    lines = httpx.get(url(worker) + "/metrics", timeout=5).text.splitlines()
    return next(int(float(line.rsplit(" ", 1)[1])) for line in lines if line.startswith("headrace_standby_shards "))


def in_the_log(bootstrap: str) -> int:
    return len(read_committed(bootstrap, INTERACTIONS))


class Heard:
    """What a listener hears."""

    def __init__(self) -> None:
        self.standbys: list[Standby] = []
        self.error: Exception | None = None

    def opened(self, standby: Standby) -> None:
        self.standbys.append(standby)

    def changed(self, standby: Standby, users: Sequence[bytes], items: Sequence[Row]) -> None:
        pass

    def failed(self, error: Exception) -> None:
        self.error = error


async def test_the_copy_of_another_topic_is_no_copy(bootstrap: str, tmp_path: Path) -> None:
    ensure_topics(bootstrap, specs("copied", "v1", PARTITIONS))
    store = RocksStore(tmp_path / "users-1")
    store.note_topic("another topic's")
    store.write([(b"u:somebody", b"row")], 5)
    store.close()
    heard = Heard()
    standbys = Standbys(
        bootstrap, ShardTopics.of("copied", "v1"), tmp_path, lambda: changelog_consumer(bootstrap), heard
    )
    standbys.follow({0, 1})
    async with asyncio.timeout(20):
        while heard.error is None:  # noqa: ASYNC110 - the thread under test sets no event
            await asyncio.sleep(0.02)
    assert isinstance(heard.error, TopicReplaced)
    # What it had open is closed: a take-over opens it, and says what is wrong itself.
    await standbys.let_go({0, 1})
    RocksStore(tmp_path / "users-0").close()
    RocksStore(tmp_path / "users-1").close()
    await standbys.stop()


async def test_a_store_is_closed_before_it_is_let_go(bootstrap: str, tmp_path: Path) -> None:
    ensure_topics(bootstrap, specs("let-go", "v1", PARTITIONS))
    heard = Heard()
    standbys = Standbys(
        bootstrap, ShardTopics.of("let-go", "v1"), tmp_path, lambda: changelog_consumer(bootstrap), heard
    )
    try:
        for _ in range(5):
            standbys.follow({0, 1})
            if len(heard.standbys) < 2:
                async with asyncio.timeout(20):
                    while not all(standby.caught_up for standby in heard.standbys) or len(heard.standbys) < 2:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                with pytest.raises(StateError):
                    RocksStore(tmp_path / "users-1")
            await standbys.let_go({1})
            RocksStore(tmp_path / "users-1").close()
        assert heard.error is None
    finally:
        await standbys.stop()
    RocksStore(tmp_path / "users-0").close()
