"""The HTTP interface: thin views that parse, ask, and answer. Faust mounts them on the worker's own loop."""

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import msgspec
from aiohttp import web
from faust.web import View
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from agents.app import HeadraceApp
from api import docs_page, openapi
from api.caller import Caller, by_peer
from api.errors import Problem, bad_request, misdirected, not_found, unavailable
from api.experiments import report
from api.hop import Hop
from api.listing import Listing
from api.middleware import answer
from api.openapi import MAX_EVENTS
from api.producer import LogWriter
from api.rendering import items_of, named
from api.requests import CountRequest, ListRequest, Presets, from_body, from_query, read_query, require_id
from api.schemas import (
    EventsTaken,
    Item,
    KnownUser,
    Readiness,
    Refusal,
    SimilarVideos,
    Status,
    Stored,
    Trending,
)
from api.scopes import SEES_FIGURES
from infra import metrics
from state.experiment import Experiment
from state.lists import MAX_SESSION, Served, similar, trending
from state.profiles import profile_of
from topics import catalog, specs
from topics.interactions import decode_value, encode, require_time
from topics.partitions import partition_of
from topics.rejected import Rejected


class ApiView(View):
    """What all views share. `app.state` of the aiohttp application is not used: Faust's app carries the engine."""

    app: HeadraceApp
    log_writer: LogWriter
    presets: Presets
    listing: Listing
    hop: Hop

    @property
    def headrace(self) -> HeadraceApp:
        """The worker's app."""
        return self.app

    @property
    def experiment(self) -> Experiment | None:
        """The experiment that users are in, if there is one."""
        return self.headrace.engine.options.experiment

    def require_ready(self) -> None:
        """Refuse with 503 while the first recovery has not ended: an answer from nothing would look like an answer."""
        if not self.headrace.started_once:
            raise unavailable("state is being recovered")

    def known(self, video_id: str) -> int:
        """The video's row. Raises Problem where nobody knows it."""
        replica = self.headrace.engine.replica
        row = replica.find(require_id(video_id, "video_id"))
        if row is None or replica.deleted[row] or replica.expired[row]:
            raise not_found(f"no video {video_id!r} in the catalogue or the log")
        return row

    def now_ms(self) -> int:
        """Wall clock."""
        return int(time.time() * 1000)

    def items(self, served: Sequence[Served]) -> list[Item]:
        """Rows as they travel."""
        return items_of(self.headrace.engine, served)


class Lists(ApiView):
    """What the two ways to ask for a list share."""

    async def list_for(self, request: web.Request, asked: ListRequest) -> Any:
        """The list."""
        found = await self.listing.answer(asked, Caller.of(request, self.hop.group))
        response = web.Response(body=found.body, content_type="application/json", charset="utf-8")
        return by_peer(request, response) if found.step == "peer" else response


class Recommend(Lists):
    """`GET /v1/recommend/{user_id}`."""

    async def get(self, request: Any, user_id: str) -> Any:
        """A list for a user; somebody unknown gets what is trending and new."""
        return await self.list_for(request, from_query(request, self.presets, self.experiment, user_id=user_id))


class RecommendAnybody(Lists):
    """`GET` and `POST /v1/recommend`: the user, if any, is a field like others."""

    async def get(self, request: Any) -> Any:
        """A list, asked for by a query string."""
        return await self.list_for(request, from_query(request, self.presets, self.experiment))

    async def post(self, request: Any) -> Any:
        """A list, asked for by a JSON body."""
        return await self.list_for(request, await from_body(request, self.presets, self.experiment))


class Next(Lists):
    """`GET /v1/next/{video_id}`: what goes on after a video."""

    async def get(self, request: Any, video_id: str) -> Any:
        """A list for whoever watches the video now: the user, if one is named, or anybody."""
        self.require_ready()
        self.known(video_id)
        asked = from_query(request, self.presets, self.experiment)
        if len(asked.session) >= MAX_SESSION:
            raise bad_request(
                "bad_session", f"session has room for {MAX_SESSION - 1} videos beside the one in the path"
            )
        return await self.list_for(request, msgspec.structs.replace(asked, session=(*asked.session, video_id)))


class Similar(ApiView):
    """`GET /v1/similar/{video_id}?n=`."""

    async def get(self, request: Any, video_id: str) -> Any:
        """Videos that go with one."""
        self.require_ready()
        served = similar(self.headrace.engine, self.known(video_id), read_query(request, CountRequest).n)
        return answer(SimilarVideos(video_id, self.headrace.as_of_ms(None, self.now_ms()), self.items(served)))


class TrendingView(ApiView):
    """`GET /v1/trending?n=`."""

    async def get(self, request: Any) -> Any:
        """What is watched now."""
        self.require_ready()
        served = trending(self.headrace.engine, read_query(request, CountRequest).n)
        return answer(Trending(self.headrace.as_of_ms(None, self.now_ms()), self.items(served)))


class Events(ApiView):
    """`POST /v1/events`."""

    async def post(self, request: Any) -> Any:
        """Take one event or an array of up to 1,000; `event_id` and `at_ms` are filled in where they are missing."""
        body = await request.read()
        single, raw = _split(body)
        now = self.now_ms()
        tolerance = self.headrace.options.future_tolerance_ms
        taken: list[tuple[str, bytes]] = []
        refused: list[Refusal] = []
        for index, part in enumerate(raw):
            try:
                event = decode_value(_completed(bytes(part), now))
                require_time(event.at_ms, now, tolerance)
                taken.append((event.user_id, encode(event)))
            except Rejected as why:
                refused.append(Refusal(index, str(why.reason), why.detail))
        if single and refused:
            raise Problem(400, refused[0].reason, refused[0].detail)
        offsets: dict[str, int] = {}
        for partition, offset in await self.log_writer.write(specs.INTERACTIONS, taken) if taken else []:
            offsets[str(partition)] = max(offset + 1, offsets.get(str(partition), 0))
        return answer(EventsTaken(len(taken), refused, offsets), 202)


def _split(body: bytes) -> tuple[bool, list[msgspec.Raw]]:
    """The events of a body, undecoded, and whether it was a single one."""
    try:
        if body.lstrip()[:1] == b"[":
            parts = msgspec.json.decode(body, type=list[msgspec.Raw])
            single = False
        else:
            parts, single = [msgspec.json.decode(body, type=msgspec.Raw)], True
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise bad_request("malformed_json", f"the body is no JSON: {error}") from error
    if not 1 <= len(parts) <= MAX_EVENTS:
        raise bad_request("bad_count", f"1 to {MAX_EVENTS} events a request, got {len(parts)}")
    return single, parts


def _completed(raw: bytes, now_ms: int) -> bytes:
    """Fill in a missing `event_id` and `at_ms`; anything else is left for `decode_value` to judge."""
    if b'"event_id"' in raw and b'"at_ms"' in raw:
        return raw
    try:
        fields = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return raw
    if not isinstance(fields, dict):
        return raw
    fields.setdefault("event_id", uuid.uuid4().hex)
    fields.setdefault("at_ms", now_ms)
    return msgspec.json.encode(fields)


class Entry(ApiView):
    """What `PUT` and `DELETE` of catalogue entries share."""

    async def store(self, topic: str, entry_id: str, value: bytes | None) -> Any:
        """Append to a compacted topic; 202 once the broker has it."""
        [(partition, offset)] = await self.log_writer.write(topic, [(entry_id, value)])
        return answer(Stored(entry_id, partition, offset), 202)

    async def body(self, request: web.Request, kind: str) -> bytes:
        """The record in the request's body, checked and in its canonical form."""
        try:
            raw = await request.read()
            if kind == "video":
                return catalog.encode(catalog.decode_video_value(raw))
            user = catalog.decode_user_value(raw)
            if user.erased_ms is not None:
                raise bad_request("bad_erased_ms", "erased_ms is set by DELETE")
            return catalog.encode(user)
        except Rejected as why:
            raise bad_request(str(why.reason), why.detail) from why


class Videos(Entry):
    """`PUT` and `DELETE /v1/videos/{video_id}`."""

    async def put(self, request: Any, video_id: str) -> Any:
        """Put a video into the catalogue, or change it."""
        return await self.store(specs.VIDEOS, require_id(video_id, "video_id"), await self.body(request, "video"))

    async def delete(self, request: Any, video_id: str) -> Any:
        """Take a video out of the catalogue and of everything learned; one that nobody knows is no error."""
        return await self.store(specs.VIDEOS, require_id(video_id, "video_id"), None)


class Users(Entry):
    """`GET`, `PUT` and `DELETE /v1/users/{user_id}`."""

    async def get(self, request: Any, user_id: str) -> Any:
        """What is known of a user, and why their lists are as they are."""
        self.require_ready()
        app = self.headrace
        partition = partition_of(require_id(user_id, "user_id").encode(), app.options.partitions)
        if (
            partition not in app.engine.shards
            and (found := await self._of_owner(request, user_id, partition)) is not None
        ):
            return found
        known = profile_of(app.engine, user_id, partition)
        if known is None:
            raise not_found(f"nothing is known of user {user_id!r}")
        return answer(
            KnownUser(
                user_id=user_id,
                partition=partition,
                as_of_ms=app.as_of_ms(partition, self.now_ms()),
                offset=app.applied(partition),
                attributes=known.attributes,
                segments=known.segments,
                events=known.events,
                last_event_ms=known.last_event_ms,
                positives=named(app.engine, known.positives),
                passed=named(app.engine, known.passed),
                seen=known.seen,
                categories=known.categories,
                authors=known.authors,
            )
        )

    async def _of_owner(self, request: web.Request, user_id: str, partition: int) -> Any:
        """The owner's answer; None where it gives none, and there is a copy of the shard here."""
        caller = Caller.of(request, self.hop.group)
        known = await self.hop.known_user(user_id, partition, caller) if caller.hop is None else None
        if known is not None:
            return by_peer(request, answer(known))
        if caller.hop is not None or partition not in self.headrace.engine.standbys:
            raise misdirected(f"another worker owns shard {partition}, which has the user")
        return None

    async def delete(self, request: Any, user_id: str) -> Any:
        """Erase a user: what is known of them, and what was learned up to now; one that nobody knows is no error."""
        value = catalog.encode(catalog.User(erased_ms=self.now_ms()))
        stored = await self.store(specs.USERS, require_id(user_id, "user_id"), value)
        await self.listing.forget(user_id)
        return stored

    async def put(self, request: Any, user_id: str) -> Any:
        """Set a user's attributes."""
        return await self.store(specs.USERS, require_id(user_id, "user_id"), await self.body(request, "user"))


class Health(ApiView):
    """`GET /healthz`: the process answers."""

    async def get(self, request: Any) -> Any:
        """200 while the loop turns."""
        return answer(Status("ok"))


class Ready(ApiView):
    """`GET /readyz`: shards are recovered and assigned; which and how much, for whoever may read the metrics."""

    async def get(self, request: Any) -> Any:
        """200 once recovery and assignment are done, else 503."""
        app = self.headrace
        body = Readiness(app.ready)
        if request[SEES_FIGURES]:
            body = Readiness(app.ready, sorted(app.engine.shards), dict(app.engine.totals()))
        return answer(body, 200 if app.ready else 503, {} if app.ready else {"Retry-After": "1"})


class OpenApi(ApiView):
    """`GET /openapi.json`."""

    body = msgspec.json.encode(openapi.document())

    async def get(self, request: Any) -> Any:
        """The document."""
        return web.Response(body=self.body, content_type="application/json", charset="utf-8")


class Docs(ApiView):
    """`GET /docs`."""

    body = docs_page.page(openapi.document()).encode()

    async def get(self, request: Any) -> Any:
        """The document as a page."""
        return web.Response(
            body=self.body,
            content_type="text/html",
            charset="utf-8",
            headers={"Content-Security-Policy": docs_page.POLICY},
        )


class Experiments(ApiView):
    """`GET /v1/experiments`."""

    async def get(self, request: Any) -> Any:
        """What has followed the lists of each arm."""
        self.require_ready()
        return answer(report(self.headrace.engine.tally, self.headrace.as_of_ms(None, self.now_ms())))


class Metrics(ApiView):
    """`GET /metrics`."""

    async def get(self, request: Any) -> Any:
        """Prometheus' text format."""
        self.headrace.publish_metrics()
        return web.Response(body=generate_latest(metrics.REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})


ROUTES: dict[str, type[ApiView]] = {
    "/v1/recommend": RecommendAnybody,
    "/v1/recommend/{user_id}": Recommend,
    "/v1/next/{video_id}": Next,
    "/v1/similar/{video_id}": Similar,
    "/v1/trending": TrendingView,
    "/v1/events": Events,
    "/v1/videos/{video_id}": Videos,
    "/v1/users/{user_id}": Users,
    "/v1/experiments": Experiments,
    "/healthz": Health,
    "/readyz": Ready,
    "/metrics": Metrics,
    "/openapi.json": OpenApi,
    "/docs": Docs,
}


class Shared(NamedTuple):
    """What all views have of their worker, beside its app."""

    log_writer: LogWriter
    presets: Presets
    listing: Listing
    hop: Hop


def mount(app: HeadraceApp, shared: Shared, routes: Mapping[str, type[ApiView]] = ROUTES) -> None:
    """Put the API on the worker's web server."""
    for pattern, view in routes.items():
        attributes = {**shared._asdict(), "__doc__": view.__doc__}
        app.page(pattern, name=view.__name__.lower())(cast("type[ApiView]", type(view.__name__, (view,), attributes)))
