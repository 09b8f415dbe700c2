"""A client of a worker's HTTP interface: typed answers, retries that cannot count an event twice, and events in batches.

Flows in: requests of a program. Flows out: the structs that the worker encodes (`api.schemas`), or a `ServiceError`. Always holds: an
event gets its id and time here, before it is first sent, so whatever is sent again is the same event; nothing that was given to a
`Batcher` is dropped in silence.

    client = Client("http://127.0.0.1:6066")
    with Batcher(client) as batcher:
        batcher.send("ann", "v1", "like")
    print(client.recommend("ann", n=5).items)
"""

import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
import structlog
import urllib3
from urllib3.util import Retry, Timeout

from api.schemas import (
    EventsTaken,
    Failure,
    KnownUser,
    Recommendations,
    Refusal,
    SimilarVideos,
    Stored,
    Trending,
)
from topics.catalog import User, Video
from topics.interactions import Event, Interaction

log = structlog.get_logger(__name__)

#: Events of one request; the worker takes no more.
MOST_EVENTS = 1_000
#: Answers after which the same is asked again: not yet, too much, starting.
RETRIED = (408, 429, 503)
RETRIES = 3
BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 5.0
CONNECT_S, READ_S = 2.0, 10.0

_Answer = TypeVar("_Answer")


class ServiceError(RuntimeError):
    """The service cannot be reached, or does not do what was asked.

    Attributes
    ----------
    status : of the answer; 0 where there was none
    error : the problem in one word, as the service names it; `unreachable` where there was no answer
    """

    def __init__(self, status: int, error: str, detail: str) -> None:
        super().__init__(f"{detail} ({error})")
        self.status, self.error = status, error


class Client:
    """Requests to one address; for any number of threads at once.

    Parameters
    ----------
    url : of a worker or a load balancer, http or https
    key : an API key, where the service wants one
    retries : how often what may come right by itself is asked again
    connections : kept open
    """

    def __init__(self, url: str, key: str | None = None, *, retries: int = RETRIES, connections: int = 8) -> None:
        self.url = url.rstrip("/")
        headers = {"Accept": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        self._pool = urllib3.PoolManager(
            maxsize=connections,
            headers=headers,
            timeout=Timeout(connect=CONNECT_S, read=READ_S),
            retries=Retry(
                total=retries,
                backoff_factor=BACKOFF_S,
                backoff_max=LONGEST_BACKOFF_S,
                status_forcelist=RETRIED,
                # All that is asked here may be asked twice: events have ids, and a record that is put twice is the same.
                allowed_methods=None,
                raise_on_status=False,
                redirect=0,
            ),
        )

    def recommend(self, user_id: str | None = None, n: int = 10, **asked: Any) -> Recommendations:
        """A list for a user; `asked` has more fields of `POST /v1/recommend`, as `session`, `exclude` or `filter`."""
        return self._ask("POST", "/v1/recommend", {"user_id": user_id, "n": n, **asked}, Recommendations)

    def next(self, video_id: str, user_id: str | None = None, n: int = 10) -> Recommendations:
        """What goes on after a video, for a user or for anybody."""
        fields: dict[str, Any] = {"n": n} if user_id is None else {"n": n, "user_id": user_id}
        return self._ask("GET", _path("next", video_id), None, Recommendations, fields)

    def similar(self, video_id: str, n: int = 10) -> SimilarVideos:
        """Videos that go with one, whoever asks."""
        return self._ask("GET", _path("similar", video_id), None, SimilarVideos, {"n": n})

    def trending(self, n: int = 10) -> Trending:
        """What is watched now."""
        return self._ask("GET", "/v1/trending", None, Trending, {"n": n})

    def user(self, user_id: str) -> KnownUser | None:
        """What is known of a user; None where nothing is."""
        try:
            return self._ask("GET", _path("users", user_id), None, KnownUser)
        except ServiceError as error:
            if error.status == 404:
                return None
            raise

    def put_user(self, user_id: str, user: User) -> Stored:
        """Say what is known of a user beside events."""
        return self._ask("PUT", _path("users", user_id), user, Stored)

    def erase_user(self, user_id: str) -> Stored:
        """Have a user forgotten: what is known of them, and what was learned until now."""
        return self._ask("DELETE", _path("users", user_id), None, Stored)

    def put_video(self, video_id: str, video: Video) -> Stored:
        """Put a video into the catalogue, or change it."""
        return self._ask("PUT", _path("videos", video_id), video, Stored)

    def delete_video(self, video_id: str) -> Stored:
        """Take a video out of the catalogue and of all that is learned."""
        return self._ask("DELETE", _path("videos", video_id), None, Stored)

    def send(self, events: Iterable[Interaction]) -> EventsTaken:
        """Send events; returns when the log has them, in one answer for all of them.

        Raises
        ------
        ServiceError
            Some may be in the log. Send the same again: what is there already does not count twice.
        """
        whole = EventsTaken(0, [], {})
        batch = list(events)
        for first in range(0, len(batch), MOST_EVENTS):
            part = batch[first : first + MOST_EVENTS]
            taken = self._ask("POST", "/v1/events", part, EventsTaken)
            whole.accepted += taken.accepted
            whole.rejected += [Refusal(first + each.index, each.reason, each.detail) for each in taken.rejected]
            whole.offsets |= taken.offsets
        return whole

    def _ask(
        self, method: str, path: str, body: object, answer: type[_Answer], fields: dict[str, Any] | None = None
    ) -> _Answer:
        data = None if body is None else msgspec.json.encode(body)
        headers = {} if data is None else {"Content-Type": "application/json"}
        try:
            response = self._pool.request(
                method,
                self.url + path,
                body=data,
                fields=fields,
                headers={**self._pool.headers, **headers},
            )
        except urllib3.exceptions.HTTPError as error:
            raise ServiceError(0, "unreachable", f"no answer from {self.url}: {error}") from error
        if response.status >= 400:
            raise _failure(response.status, response.data)
        try:
            return msgspec.json.decode(response.data, type=answer)
        except msgspec.MsgspecError as error:
            raise ServiceError(response.status, "no_answer", f"what answers at {self.url} is no Headrace") from error

    def close(self) -> None:
        """Close what is kept open; a later request opens it again."""
        self._pool.clear()


def _path(kind: str, name: str) -> str:
    return f"/v1/{kind}/{quote(name, safe='')}"


def _failure(status: int, data: bytes) -> ServiceError:
    try:
        problem = msgspec.json.decode(data, type=Failure)
    except msgspec.MsgspecError:
        return ServiceError(status, "refused", data[:200].decode(errors="replace"))
    return ServiceError(status, problem.error, problem.detail)


def interaction(user_id: str, video_id: str, event: Event, **more: Any) -> Interaction:
    """An event of now, with an id of its own; `more` has what else an `Interaction` has."""
    made = {"event_id": uuid.uuid4().hex, "at_ms": time.time_ns() // 1_000_000, **more}
    return Interaction(user_id=user_id, video_id=video_id, event=event, **made)


class Full(RuntimeError):
    """Too many events wait to be sent: the service is away, or slower than they come."""


Undelivered = Callable[[Sequence[Interaction], str], None]
"""Called with events that were not taken, and why."""


class Batcher:
    """Sends events from a thread of its own, many in a request, in order.

    Parameters
    ----------
    undelivered : called from that thread with events that the service refused, or could not be given within all retries; by default
        they are logged
    most : events of a request
    linger_s : how long the first one of a request waits for company
    room : events that may wait; then `send` waits for `patience_s`, and raises `Full`
    """

    def __init__(
        self,
        client: Client,
        undelivered: Undelivered | None = None,
        *,
        most: int = 500,
        linger_s: float = 0.05,
        room: int = 20_000,
        patience_s: float = 5.0,
    ) -> None:
        if not 1 <= most <= MOST_EVENTS:
            raise ValueError(f"most must be 1 to {MOST_EVENTS}, got {most}")
        self._client = client
        self._undelivered = undelivered or _say
        self._most, self._linger_s, self._patience_s = most, linger_s, patience_s
        self._waiting: queue.Queue[Interaction | None] = queue.Queue(room)
        self._thread = threading.Thread(target=self._run, name="headrace-events", daemon=True)
        self._closed = False
        self._thread.start()

    def send(self, user_id: str, video_id: str, event: Event, **more: Any) -> None:
        """Send an event of now, soon. Raises Full."""
        self.put(interaction(user_id, video_id, event, **more))

    def put(self, event: Interaction) -> None:
        """Send an event, soon. Raises Full."""
        if self._closed:
            raise RuntimeError("the batcher is closed")
        try:
            self._waiting.put(event, timeout=self._patience_s)
        except queue.Full:
            raise Full(f"{self._waiting.maxsize} events wait to be sent to {self._client.url}") from None

    def close(self) -> None:
        """Send what waits, and end."""
        if not self._closed:
            self._closed = True
            self._waiting.put(None)
            self._thread.join()

    def _run(self) -> None:
        last = False
        while not last:
            first = self._waiting.get()
            batch: list[Interaction] = []
            last = first is None
            if first is not None:
                batch.append(first)
                last = self._gather(batch)
            if batch:
                self._deliver(batch)

    def _gather(self, batch: list[Interaction]) -> bool:
        """Fill the batch as far as events come; whether the last one has."""
        deadline = time.monotonic() + self._linger_s
        while len(batch) < self._most:
            try:
                event = self._waiting.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return False
            if event is None:
                return True
            batch.append(event)
        return False

    def _deliver(self, batch: list[Interaction]) -> None:
        try:
            refused = self._client.send(batch).rejected
        except ServiceError as error:
            self._tell(batch, str(error))
            return
        for each in refused:
            self._tell([batch[each.index]], f"{each.reason}: {each.detail}")

    def _tell(self, events: Sequence[Interaction], why: str) -> None:
        try:
            self._undelivered(events, why)
        except Exception:
            # Whoever is told of events must not end the thread that has the others.
            log.exception("events were not delivered", events=len(events), why=why)

    def __enter__(self) -> "Batcher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _say(events: Sequence[Interaction], why: str) -> None:
    log.error("events were not taken", events=len(events), first=events[0].event_id, why=why)
