"""The HTTP interface: thin views that parse, ask, and answer. Faust mounts them on the worker's own loop."""

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
import numpy as np
from aiohttp import web
from faust.web import View
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from agents.app import HeadraceApp
from api.cursor import encode_cursor
from api.errors import Problem, bad_request, misdirected, not_found, unavailable
from api.experiments import report
from api.middleware import answer
from api.producer import LogWriter
from api.requests import DEFAULT_N, MAX_N, ListRequest, Presets, from_body, from_query, require_id, whole_number
from api.schemas import (
    EventsTaken,
    Item,
    KnownUser,
    Named,
    Reason,
    Recommendations,
    Refusal,
    SimilarVideos,
    Stored,
    Trending,
)
from infra import metrics
from online_models.base import Context
from state.errors import StateError
from state.experiment import Arm, Experiment
from state.lists import MAX_SESSION, Served, list_inputs, personal_list, similar, trending
from state.prediction import INPUT_NAMES
from state.profiles import profile_of
from state.stages import Stages
from topics import catalog, specs
from topics.interactions import decode_value, encode, require_time
from topics.partitions import partition_of
from topics.recommendations import MAX_PLACES, encode_list
from topics.rejected import Rejected

MAX_EVENTS = 1000
#: Between two looks at whether an answer includes what it waits for.
REACH_PAUSE_S = 0.005


class ApiView(View):
    """What all views share. `app.state` of the aiohttp application is not used: Faust's app carries the engine."""

    app: HeadraceApp
    log_writer: LogWriter
    presets: Presets

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
        row = self.headrace.engine.replica.find(require_id(video_id, "video_id"))
        if row is None or self.headrace.engine.replica.deleted[row]:
            raise not_found(f"no video {video_id!r} in the catalogue or the log")
        return row

    def now_ms(self) -> int:
        """Wall clock."""
        return int(time.time() * 1000)

    def named(self, rows: Sequence[int]) -> list[Named]:
        """Videos by their rows."""
        replica = self.headrace.engine.replica
        return [Named(replica.ids[row] or "", title_of(replica.video(row))) for row in rows]

    def items(self, served: Sequence[Served]) -> list[Item]:
        """Rows as they travel."""
        replica = self.headrace.engine.replica
        listed = []
        for place in served:
            video = replica.video(place.row)
            reasons = [Reason(r.kind, r.text, None if r.row is None else replica.ids[r.row]) for r in place.reasons]
            listed.append(Item(replica.ids[place.row] or "", round(place.score, 6), reasons, title_of(video)))
        return listed


def title_of(video: catalog.Video | None) -> str | None:
    """Its title, if it has any."""
    return video.title if video is not None and video.title else None


def _count(request: web.Request) -> int:
    n = whole_number("n", request.query.get("n", str(DEFAULT_N)))
    if not 1 <= n <= MAX_N:
        raise bad_request("bad_n", f"n must be from 1 to {MAX_N}, got {n}")
    return n


class Lists(ApiView):
    """What the two ways to ask for a list share."""

    async def list_for(self, asked: ListRequest) -> Any:
        """The list, as soon as it includes what it should, or has waited for that as long as it may."""
        self.require_ready()
        app, user_id, experiment = self.headrace, asked.user_id, self.experiment
        arm = None if experiment is None or user_id is None else experiment.arm_of(user_id)
        wish = asked.wish(arm)
        partition = None if user_id is None else partition_of(user_id.encode(), app.options.partitions)
        if partition is not None and asked.min_offset:
            await self._reach(partition, asked.min_offset, asked.wait_ms / 1000)
        stages = Stages()
        try:
            served, source, context = personal_list(
                app.engine, user_id, -1 if partition is None else partition, wish, stages
            )
        except StateError as error:
            # A row on the disk cannot be read, and so not be learned with either.
            await app.crash(error)
            raise unavailable("a row of the state cannot be read; the worker stops") from error
        shard = None if partition is None else app.engine.shards.get(partition)
        recommendation_id = uuid.uuid4().hex
        if user_id is not None and shard is not None and served:
            self._log(recommendation_id, user_id, source, served, context, wish.before, arm)
            stages.mark("log")
        codes = app.engine.replica.hashes[[place.row for place in served]]
        response = answer(
            Recommendations(
                user_id=user_id,
                recommendation_id=recommendation_id,
                source=source if user_id is None or shard is not None else "replica",
                as_of_ms=app.as_of_ms(partition, self.now_ms()),
                offset=0 if shard is None else shard.next.get(specs.INTERACTIONS, 0),
                items=self.items(served),
                next_cursor=encode_cursor(wish.shown, codes) if len(served) == wish.n else None,
                arm=None if arm is None else arm.name,
            )
        )
        stages.mark("encode")
        for stage, seconds in stages.seconds:
            metrics.STAGE_SECONDS.labels(stage).observe(seconds)
        return response

    async def _reach(self, partition: int, offset: int, within_s: float) -> None:
        """Wait until the user's shard has learned all below `offset`; not for a shard that another worker owns."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            shard = self.headrace.engine.shards.get(partition)
            if shard is None or shard.next.get(specs.INTERACTIONS, 0) >= offset:
                return
            await asyncio.sleep(REACH_PAUSE_S)

    def _log(
        self,
        recommendation_id: str,
        user_id: str,
        source: str,
        served: Sequence[Served],
        context: Context,
        first: int,
        arm: Arm | None,
    ) -> None:
        """Say in the log what was served, and what was known of it: what follows is learned from, and counted for the arm."""
        engine = self.headrace.engine
        rows = np.array([place.row for place in served[:MAX_PLACES]], np.int32)
        inputs = list_inputs(engine, context, rows)
        video_ids = engine.replica.ids_of(rows.tolist())
        explored = [number for number, place in enumerate(served) if place.explores]
        value = encode_list(
            recommendation_id, self.now_ms(), source, video_ids, explored, INPUT_NAMES, inputs, first=first,
            arm="" if arm is None else arm.name, experiment=0 if self.experiment is None else self.experiment.id,
        )  # fmt: skip
        self.log_writer.write_behind(specs.RECOMMENDATIONS, user_id, value)


class Recommend(Lists):
    """`GET /v1/recommend/{user_id}`."""

    async def get(self, request: Any, user_id: str) -> Any:
        """A list for a user; somebody unknown gets what is trending and new."""
        return await self.list_for(from_query(request, self.presets, self.experiment, user_id=user_id))


class RecommendAnybody(Lists):
    """`GET` and `POST /v1/recommend`: the user, if any, is a field like others."""

    async def get(self, request: Any) -> Any:
        """A list, asked for by a query string."""
        return await self.list_for(from_query(request, self.presets, self.experiment))

    async def post(self, request: Any) -> Any:
        """A list, asked for by a JSON body."""
        return await self.list_for(await from_body(request, self.presets, self.experiment))


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
        return await self.list_for(msgspec.structs.replace(asked, session=(*asked.session, video_id)))


class Similar(ApiView):
    """`GET /v1/similar/{video_id}?n=`."""

    async def get(self, request: Any, video_id: str) -> Any:
        """Videos that go with one."""
        self.require_ready()
        served = similar(self.headrace.engine, self.known(video_id), _count(request))
        return answer(SimilarVideos(video_id, self.headrace.as_of_ms(None, self.now_ms()), self.items(served)))


class TrendingView(ApiView):
    """`GET /v1/trending?n=`."""

    async def get(self, request: Any) -> Any:
        """What is watched now."""
        self.require_ready()
        served = trending(self.headrace.engine, _count(request))
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
        shard = app.engine.shards.get(partition)
        if shard is None:
            raise misdirected(f"another worker owns shard {partition}, which has the user")
        known = profile_of(app.engine, user_id, partition)
        if known is None:
            raise not_found(f"nothing is known of user {user_id!r}")
        return answer(
            KnownUser(
                user_id=user_id,
                partition=partition,
                as_of_ms=app.as_of_ms(partition, self.now_ms()),
                offset=shard.next.get(specs.INTERACTIONS, 0),
                attributes=known.attributes,
                segments=known.segments,
                events=known.events,
                last_event_ms=known.last_event_ms,
                positives=self.named(known.positives),
                passed=self.named(known.passed),
                seen=known.seen,
                categories=known.categories,
                authors=known.authors,
            )
        )

    async def delete(self, request: Any, user_id: str) -> Any:
        """Erase a user: what is known of them, and what was learned up to now; one that nobody knows is no error."""
        value = catalog.encode(catalog.User(erased_ms=self.now_ms()))
        return await self.store(specs.USERS, require_id(user_id, "user_id"), value)

    async def put(self, request: Any, user_id: str) -> Any:
        """Set a user's attributes."""
        return await self.store(specs.USERS, require_id(user_id, "user_id"), await self.body(request, "user"))


class Health(ApiView):
    """`GET /healthz`: the process answers."""

    async def get(self, request: Any) -> Any:
        """200 while the loop turns."""
        return answer({"status": "ok"})


class Ready(ApiView):
    """`GET /readyz`: shards are recovered and assigned."""

    async def get(self, request: Any) -> Any:
        """200 once recovery and assignment are done, else 503."""
        app = self.headrace
        body: Mapping[str, Any] = {
            "ready": app.ready,
            "shards": sorted(app.engine.shards),
            "totals": app.engine.totals(),
        }
        return answer(body, 200 if app.ready else 503, {} if app.ready else {"Retry-After": "1"})


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
}


def mount(app: HeadraceApp, writer: LogWriter, presets: Presets) -> None:
    """Put the API on the worker's web server."""
    for pattern, view in ROUTES.items():
        bound = cast(
            "type[ApiView]",
            type(view.__name__, (view,), {"log_writer": writer, "presets": presets, "__doc__": view.__doc__}),
        )
        app.page(pattern, name=view.__name__.lower())(bound)
