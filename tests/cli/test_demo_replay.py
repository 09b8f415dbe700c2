"""The demo's replay keeps to the worker's pace, and asks for a list before it gives the answer away."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cli.demo_replay import MAX_LAG, TOP, WARMUP_EVENTS, Replay
from cli.demo_status import Status
from cli.worker_client import WorkerClient, WorkerUnavailable
from topics.interactions import Interaction


class Answers(WorkerClient):
    """A worker that lists `served` and `trending`; it notes how much was replayed when it was asked."""

    def __init__(self, status: Status, served: list[str], trending: list[str]) -> None:
        super().__init__("http://nowhere")
        self.status, self.served, self.trending = status, served, trending
        self.asked_at: list[int] = []

    def ask(self, _method: str, path: str, _body: object = None) -> dict[str, Any]:
        self.asked_at.append(self.status.replayed)
        ids = self.trending if "trending" in path else self.served
        return {"items": [{"video_id": video_id} for video_id in ids]}


class Away(WorkerClient):
    def ask(self, _method: str, _path: str, _body: object = None) -> dict[str, Any]:
        raise WorkerUnavailable("away")


def like(user_id: str, video_id: str) -> Interaction:
    return Interaction(f"{user_id} {video_id}", user_id, video_id, "like", 1)


def replayed(status: Status, client: WorkerClient, events: list[Interaction]) -> Iterator[Interaction]:
    return Replay("unused", client, status, None)._paced(events)


def test_no_more_than_max_lag_are_under_way() -> None:
    status = Status()
    sent: list[Interaction] = []
    events = [like(str(number), "v") for number in range(MAX_LAG + 50)]
    thread = threading.Thread(target=lambda: sent.extend(replayed(status, Away("http://nowhere"), events)))
    thread.start()
    deadline = time.monotonic() + 10
    while status.replayed < MAX_LAG and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    assert status.replayed == MAX_LAG
    status.totals = {"learned": 30}
    while status.replayed < MAX_LAG + 30 and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    assert status.replayed == MAX_LAG + 30
    status.stop.set()
    thread.join(10)
    assert len(sent) == MAX_LAG + 30


@pytest.mark.parametrize(
    ("served", "trending", "hit"),
    [(["v", "a"], ["b"], (True, False)), (["a"], ["old", "v"], (False, True)), ([], [], (False, False))],
)
def test_the_list_is_asked_for_before_the_event_is_sent(
    served: list[str], trending: list[str], hit: tuple[bool, bool]
) -> None:
    status = Status(replayed=WARMUP_EVENTS)
    status.totals = {"learned": WARMUP_EVENTS}
    client = Answers(status, served, trending)
    list(replayed(status, client, [like("u", "v")]))
    assert status.hits == [hit]
    assert client.asked_at == [WARMUP_EVENTS, WARMUP_EVENTS]


def test_trending_leaves_out_what_the_user_has_seen() -> None:
    status = Status(replayed=WARMUP_EVENTS - TOP)
    status.totals = {"learned": WARMUP_EVENTS - TOP}
    seen = [f"seen-{number}" for number in range(TOP)]
    # Without the seen ones, the video stands first in trending; with them it would be the eleventh.
    list(replayed(status, Answers(status, [], [*seen, "v"]), [*(like("u", video) for video in seen), like("u", "v")]))
    assert status.hits == [(False, True)]


def test_a_worker_that_is_away_costs_a_sample_only() -> None:
    status = Status(replayed=WARMUP_EVENTS)
    status.totals = {"learned": WARMUP_EVENTS}
    events = [like("u", "v"), like("u", "w")]
    assert list(replayed(status, Away("http://nowhere"), events)) == events
    assert status.hits == []
