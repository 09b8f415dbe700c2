"""Lists as answers: who is asked for one, in which order, and what is kept and logged of it.

Flows in: a checked request. Flows out: the answer's bytes. Always holds: whoever cannot answer costs a bounded time and nobody's
request; what is logged and kept is left behind, and never holds an answer up.
"""

import asyncio
import time
import uuid
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from agents.app import HeadraceApp
from api.cache import ListCache
from api.caller import NOBODY, Caller
from api.cursor import encode_cursor
from api.errors import misdirected, unavailable
from api.fallback import Step, first_answer
from api.hop import HOP_S, Hop
from api.once import Once
from api.producer import LogWriter
from api.rendering import items_of
from api.requests import DEFAULT_N, MAX_WAIT_MS, ListRequest
from api.schemas import Item, Recommendations
from infra import metrics, tracing
from state.errors import StateError
from state.experiment import Arm
from state.lists import PersonalList, Wish, list_inputs, personal_list
from state.prediction import INPUT_NAMES
from state.stages import Stages
from topics import specs
from topics.partitions import partition_of
from topics.recommendations import MAX_PLACES, encode_list

#: Between two looks at whether an answer includes what it waits for.
REACH_PAUSE_S = 0.005
#: What each of the chain may take: computed ones should, and the one that waits does not take more than twice.
COMPUTED_MS, CACHED_MS = 50.0, 25.0


class Ask(NamedTuple):
    """A request on its way along the chain; `partition` and `arm` are the user's, None without a user, or an experiment."""

    asked: ListRequest
    wish: Wish
    partition: int | None
    arm: Arm | None
    stages: Stages
    caller: Caller


class Listed(NamedTuple):
    """An answer's bytes, and the step that gave it."""

    body: bytes
    step: str


class Listing:
    """Answers requests for lists.

    Parameters
    ----------
    app : whose state is read
    writer : takes the log of lists
    cache : of the last list of each user
    hop : to the workers that own other shards; None knows none
    """

    def __init__(self, app: HeadraceApp, writer: LogWriter, cache: ListCache, hop: Hop | None = None) -> None:
        self._app, self._writer, self._cache, self._hop = app, writer, cache, hop
        #: Answers to hops, of which a second one may come.
        self._hopped: Once[Listed] = Once()
        #: Who is asked, in order. Names are the answer's `source`, or say more of it than that.
        self.chain = (
            # Live state: of the user's shard, if it is here, or of the session of somebody without an account.
            Step("owner", COMPUTED_MS, self._by_owner),
            # The owner's live state, where that is another worker. The hop has its own, shorter budget: it knows whether to wait.
            Step("peer", HOP_S * 1000 + MAX_WAIT_MS, self._by_peer),
            # What the owner had learned at its last checkpoint, where this worker keeps a copy of the shard.
            Step("standby", COMPUTED_MS, self._by_standby),
            # The list that the owner gave last.
            Step("cache", CACHED_MS, self._by_cache),
            # The videos, which every worker knows, without the user.
            Step("replica", COMPUTED_MS, self._by_replica),
        )

    async def answer(self, asked: ListRequest, caller: Caller = NOBODY) -> Listed:
        """The list, as soon as it includes what it should, or has waited for that as long as it may.

        Raises
        ------
        Problem
            The request cannot be met, or nobody can answer yet; 421 to another worker that takes us for the owner.
        """
        if caller.hop is None:
            return await self._answer(asked, caller, self.chain)
        # A worker that stood still finds requests that nobody waits for any more; the loop learns that in its next turn.
        await asyncio.sleep(0)
        if caller.gone:
            raise misdirected("whoever asked is gone")
        return await self._hopped.answer((caller.hop, asked), lambda: self._answer(asked, caller, self.chain[:1]))

    async def _answer(self, asked: ListRequest, caller: Caller, chain: Sequence[Step[Ask, Recommendations]]) -> Listed:
        self._app.asked_at = time.monotonic()
        user_id, experiment = asked.user_id, self._app.engine.options.experiment
        arm = None if experiment is None or user_id is None else experiment.arm_of(user_id)
        wish = asked.wish(arm)
        partition = None if user_id is None else partition_of(user_id.encode(), self._app.options.partitions)
        if partition is not None and asked.min_offset:
            await self._reach(partition, asked.min_offset, asked.wait_ms / 1000)
        ask = Ask(asked, wish, partition, arm, Stages(), caller)
        found = await first_answer(chain, ask)
        if found is None and caller.hop is not None:
            raise misdirected("this worker does not own the user")
        if found is None:
            raise unavailable("state is being recovered")
        body = msgspec.json.encode(found.answer)
        if user_id is not None and found.step == "owner" and _is_plain(asked, arm):
            self._cache.put(user_id, body)
        ask.stages.mark("encode")
        for stage, seconds in ask.stages.seconds:
            metrics.STAGE_SECONDS.labels(stage).observe(seconds)
        if caller.hop is None and found.answer.as_of_ms:
            age_s = max(0, _now_ms() - found.answer.as_of_ms) / 1000
            metrics.ANSWER_AGE.labels(found.answer.source).observe(age_s)
        if tracing.spans is not None and (parts := tracing.REQUEST_STAGES.get()) is not None:
            took = sum(seconds for _, seconds in ask.stages.seconds)
            parts.append((time.time_ns() - int(took * 1e9), ask.stages.seconds))
        return Listed(body, found.step)

    async def forget(self, user_id: str) -> None:
        """A user was erased: what is kept of them here goes too."""
        await self._cache.delete(user_id)

    async def _reach(self, partition: int, offset: int, within_s: float) -> None:
        """Wait until the user's shard has learned all below `offset`, as far as it is here: owners wait for theirs themselves."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if self._app.engine.holder(partition) is None or self._app.applied(partition) >= offset:
                return
            await asyncio.sleep(REACH_PAUSE_S)

    async def _by_owner(self, ask: Ask) -> Recommendations | None:
        app = self._app
        if not app.started_once or (ask.partition is not None and ask.partition not in app.engine.shards):
            return None
        try:
            found = personal_list(
                app.engine, ask.asked.user_id, -1 if ask.partition is None else ask.partition, ask.wish, ask.stages
            )
        except StateError as error:
            # A row on the disk cannot be read, and so not be learned with either.
            await app.crash(error)
            raise unavailable("a row of the state cannot be read; the worker stops") from error
        return self._logged(ask, found, found.source)

    async def _by_standby(self, ask: Ask) -> Recommendations | None:
        app = self._app
        if not app.started_once or ask.partition is None or ask.partition not in app.engine.standbys:
            return None
        found = personal_list(app.engine, ask.asked.user_id, ask.partition, ask.wish, ask.stages)
        return self._logged(ask, found, "standby" if found.source == "owner" else found.source)

    def _logged(self, ask: Ask, found: PersonalList, source: str) -> Recommendations:
        """A list that was made of what is known of the user; it is logged, if somebody is known by their id."""
        recommendation_id = uuid.uuid4().hex
        if ask.partition is not None and found.served:
            self._log(ask, recommendation_id, found)
            ask.stages.mark("log")
        offset = 0 if ask.partition is None else self._app.applied(ask.partition)
        return self._rendered(ask, found, recommendation_id, source, offset)

    async def _by_peer(self, ask: Ask) -> Recommendations | None:
        if self._hop is None or ask.partition is None or ask.partition in self._app.engine.shards:
            return None
        found = await self._hop.list_for(ask.asked, ask.partition, ask.caller)
        ask.stages.mark("hop")
        return found

    async def _by_replica(self, ask: Ask) -> Recommendations | None:
        if not self._app.started_once:
            return None
        found = personal_list(self._app.engine, ask.asked.user_id, ask.partition or 0, ask.wish, ask.stages)
        return self._rendered(ask, found, uuid.uuid4().hex, "replica", 0)

    async def _by_cache(self, ask: Ask) -> Recommendations | None:
        """The owner's last list, less what may not be in it any more; where it is too short, it is none."""
        user_id = ask.asked.user_id
        if user_id is None or not _may_be_cached(ask.asked):
            return None
        held = await self._cache.get(user_id, CACHED_MS)
        if held is None:
            return None
        try:
            kept = msgspec.json.decode(held, type=Recommendations)
        except msgspec.MsgspecError:
            return None
        excluded = {*ask.asked.exclude, *ask.asked.session}
        items = [item for item in kept.items if item.video_id not in excluded and self._may_list(ask, item)]
        if len(items) < ask.wish.n:
            return None
        return msgspec.structs.replace(
            kept, recommendation_id=uuid.uuid4().hex, source="cache", items=items[: ask.wish.n], next_cursor=None
        )

    def _may_list(self, ask: Ask, item: Item) -> bool:
        """Whether the video is still there and is what is asked for; while nothing is known yet, what was listed stays."""
        engine = self._app.engine
        if not self._app.started_once:
            return True
        row = engine.replica.find(item.video_id)
        return row is not None and bool(engine.replica.active[row]) and ask.wish.wanted.admits(engine, row)

    def _rendered(
        self, ask: Ask, found: PersonalList, recommendation_id: str, source: str, offset: int
    ) -> Recommendations:
        app, wish = self._app, ask.wish
        codes = app.engine.replica.hashes[[place.row for place in found.served]]
        return Recommendations(
            user_id=ask.asked.user_id,
            recommendation_id=recommendation_id,
            source=source,
            as_of_ms=app.as_of_ms(ask.partition, _now_ms()),
            offset=offset,
            items=items_of(app.engine, found.served),
            next_cursor=encode_cursor(wish.shown, codes) if len(found.served) == wish.n else None,
            arm=None if ask.arm is None else ask.arm.name,
        )

    def _log(self, ask: Ask, recommendation_id: str, found: PersonalList) -> None:
        """Say in the log what was served, and what was known of it: what follows is learned from, and counted for the arm."""
        engine, served, user_id = self._app.engine, found.served, ask.asked.user_id or ""
        rows = np.array([place.row for place in served[:MAX_PLACES]], np.int32)
        inputs = list_inputs(engine, found.context, rows, found.candidates)
        video_ids = engine.replica.ids_of(rows.tolist())
        explored = [number for number, place in enumerate(served) if place.explores]
        experiment = engine.options.experiment
        value = encode_list(
            recommendation_id, _now_ms(), found.source, video_ids, explored, INPUT_NAMES, inputs, first=ask.wish.before,
            arm="" if ask.arm is None else ask.arm.name, experiment=0 if experiment is None else experiment.id,
        )  # fmt: skip
        self._writer.write_behind(specs.RECOMMENDATIONS, user_id, value)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _is_plain(asked: ListRequest, arm: Arm | None) -> bool:
    """Whether the list is good for whoever asks for the user's list next: nothing special was asked, and it is long enough."""
    fields = {name: getattr(asked, name) for name in ("user_id", "n", "scenario", "min_offset", "wait_ms")}
    # What the arm asks for, it asks for with all of the user's lists.
    plain = msgspec.convert({**({} if arm is None else arm.preset), **fields}, ListRequest)
    return asked.n >= DEFAULT_N and asked == plain


def _may_be_cached(asked: ListRequest) -> bool:
    """Whether a plain list can be made into what is asked for."""
    return not asked.session and asked.cursor is None and not asked.offset
