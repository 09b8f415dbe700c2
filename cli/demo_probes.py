"""What the demo measures while events flow: the worker's counts, freshness, and what a like changes.

Freshness is the time from a producer's send to the first answer that reflects the event: a probe user's event is sent
to Kafka, its offset comes back with the broker's acknowledgement, and the user's list is asked for until the answer
covers that offset.
"""

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, Message, Producer

from cli.demo_status import OUTCOMES, LikeShown, Status
from cli.worker_client import WorkerClient, WorkerUnavailable
from ingestion.client import Client, ServiceError, interaction
from topics.interactions import Interaction, encode
from topics.specs import INTERACTIONS, producer_config

if TYPE_CHECKING:
    from api.schemas import Item, Recommendations

GAUGE_EVERY_S = 0.01
HISTORY_EVERY_S = 1.0
PROBE_EVERY_S = 0.2
POLL_EVERY_S = 0.003
#: A probe waits this long for its answer, through a restart of the worker if need be.
PROBE_TIMEOUT_S = 120.0
#: An answer waits so long for a like to be learned, and is then asked for again.
LIKE_WAIT_MS = 1_000
#: Probe users: enough to reach every partition.
PROBE_USERS = 16
SHOWN = 5


class ProbeFailed(RuntimeError):
    """An event was sent and no answer reflected it in time."""


def start(name: str, body: Callable[[], None], status: Status) -> threading.Thread:
    """Run `body` in a thread; what it raises ends the demo."""

    def run() -> None:
        try:
            body()
        except BaseException as error:  # noqa: BLE001 - handed to the main thread, which raises it
            status.failure = status.failure or error
            status.stop.set()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def keep_counting(client: WorkerClient, status: Status) -> None:
    """Follow the worker's totals until the demo stops."""
    while not status.stop.wait(GAUGE_EVERY_S):
        try:
            status.totals = read_totals(client)
            status.answering = True
        except WorkerUnavailable:
            status.answering = False
            continue
        now = time.monotonic()
        if not status.history or now - status.history[-1][0] >= HISTORY_EVERY_S:
            status.history.append((now, status.applied()))


def read_totals(client: WorkerClient) -> dict[str, int]:
    """The worker's running totals."""
    totals = client.ask("GET", "/readyz")["totals"]
    return {name: int(totals.get(name, 0)) for name in OUTCOMES}


def keep_probing(
    client: WorkerClient, bootstrap: str, videos: Sequence[str], status: Status, until: threading.Event
) -> None:
    """Measure freshness again and again until `until` is set.

    The first event is no sample: it opens the producer's connections, which a service does once in its life.
    """
    # A user's event travels alone, as an application would send it: it does not wait for company.
    producer = Producer(producer_config(bootstrap) | {"linger.ms": 0})
    count = 0
    while not (until.wait(PROBE_EVERY_S if count else 0) and status.freshness_ms) and not status.stop.is_set():
        user = f"probe-{count % PROBE_USERS}"
        video = videos[count * 7919 % len(videos)]
        event = Interaction(uuid.uuid4().hex, user, video, "impression", status.at_ms)
        count += 1
        began = time.monotonic()
        offset = _send(producer, user, encode(event))
        status.probed += 1
        if not _await_offset(client, user, offset + 1, status.stop):
            return
        if count > 1:
            status.freshness_ms.append((time.monotonic() - began) * 1000)


def _send(producer: Producer, key: str, value: bytes) -> int:
    """Send one record; returns its offset once the broker has it."""
    answers: list[tuple[KafkaError | None, Message]] = []
    producer.produce(
        INTERACTIONS, value, key.encode(), on_delivery=lambda error, record: answers.append((error, record))
    )
    deadline = time.monotonic() + PROBE_TIMEOUT_S
    while not answers:
        producer.poll(0.1)
        if time.monotonic() > deadline:
            raise ProbeFailed(f"the broker has not acknowledged a record for {PROBE_TIMEOUT_S:.0f} s")
    error, record = answers[0]
    if error is not None:
        raise ProbeFailed(f"the broker refused a record: {error.str()}")
    return int(record.offset() or 0)


def _await_offset(client: WorkerClient, user_id: str, offset: int, stop: threading.Event) -> dict[str, Any] | None:
    """Ask until an answer covers `offset`; None if the demo stops meanwhile."""
    deadline = time.monotonic() + PROBE_TIMEOUT_S
    while not stop.is_set():
        try:
            answer = client.recommend(user_id, SHOWN)
        except WorkerUnavailable:
            answer = None
        if answer is not None and answer["offset"] >= offset:
            return answer
        if time.monotonic() > deadline:
            raise ProbeFailed(f"no answer for {user_id} reflected its event within {PROBE_TIMEOUT_S:.0f} s")
        time.sleep(POLL_EVERY_S)
    return None


def show_like(client: Client, user_id: str, status: Status, label: "Callable[[Item], str]") -> None:
    """Like the first video of a user's list, and keep the lists before and after. Raises ServiceError."""
    before = client.recommend(user_id, SHOWN)
    if not before.items:
        return
    liked = before.items[0]
    event = interaction(user_id, liked.video_id, "like", at_ms=status.at_ms)
    began = time.monotonic()
    [offset] = client.send([event]).offsets.values()
    status.liked += 1
    after = _await_like(client, user_id, offset, status.stop)
    if after is None:
        return
    took_ms = (time.monotonic() - began) * 1000
    lists = [[label(item) for item in answer.items] for answer in (before, after)]
    status.like = LikeShown(user_id, label(liked), lists[0], lists[1], took_ms)


def _await_like(client: Client, user_id: str, offset: int, stop: threading.Event) -> "Recommendations | None":
    """The list that has what was sent, for which the worker itself waits; None if the demo stops meanwhile."""
    deadline = time.monotonic() + PROBE_TIMEOUT_S
    while not stop.is_set():
        with suppress(ServiceError):  # it is starting anew
            answer = client.recommend(user_id, SHOWN, min_offset=offset, wait_ms=LIKE_WAIT_MS)
            if answer.offset >= offset:
                return answer
        if time.monotonic() > deadline:
            raise ProbeFailed(f"no answer for {user_id} reflected its like within {PROBE_TIMEOUT_S:.0f} s")
        time.sleep(POLL_EVERY_S)
    return None
