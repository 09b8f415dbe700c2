"""All state of one worker and the models over it: the one object that learning and serving share.

Nothing in here knows Kafka, HTTP or the clock. Agents change it in their steps, the API reads it, the evaluator drives it with
no broker at all. Bound: `max_users` slots and `max_videos` rows.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from online_models.base import FACTORS, Context
from online_models.content import ContentModel
from online_models.features import Models
from online_models.heads import Heads
from online_models.neighbours import COVISITATION, MARKOV, Neighbours
from online_models.parts import Shared
from online_models.popularity import Popularity
from online_models.ranker import Ranker
from online_models.segments import Segments
from online_models.sequential_mf import SequentialMF
from state import rows
from state.behaviour import behaviour_in
from state.charts import Charts
from state.experiment import Experiment
from state.expiry import DAY_MS, horizon
from state.exploration import EXPLORATION, Exploration
from state.index import EXACT_BELOW, ItemIndex
from state.objective import Objective
from state.quota import Quota
from state.recent_events import RecentEvents
from state.replica import Replica
from state.search import Search
from state.segments import segments_of
from state.shard import Shard
from state.standby import Standby
from state.tally import Tally
from state.types import BoolArray, Float64Array, Int32Array, Int64Array
from state.users import Users
from topics.catalog import Video
from topics.evidence import SHOWN
from topics.signals import DEFAULT_SIGNALS, SignalTable

#: Videos that count as new to the catalogue at one time, and for how long (in the stream's own time).
NEWEST = 200
NEW_FOR_MS = 2 * DAY_MS
#: How far one positive may move the clock by which decayed counts are read. A first event of today on top of a log of years ago
#: would otherwise fade all that was learned to nothing at once. A positive is one tick in the mean, so ten catch up after a pause.
CLOCK_STEP_TICKS = 10.0
#: Lessons of the ranker and of the heads, a day of the stream, and at first. A lesson of the ranker costs as much as twenty events,
#: one of the heads as six. A site of fewer positives learns from each, a larger one from a sample, which tells as much.
RANKER_LESSONS_PER_DAY, HEADS_LESSONS_PER_DAY = 10_000.0, 20_000.0
LESSONS_AT_FIRST = 10_000.0


@dataclass(frozen=True)
class EngineOptions:
    """What an engine is built with.

    `positives_per_day` turns event time into the ticks in which half-lives are given: event time is the only clock that every
    shard reads alike, whatever order records arrive in. `exploration` is the share of lists that explore. `exact_below` is the number
    of videos up to which lessons look for factors without the graph, which depends on how much time it was given. `user_ttl_days` and
    `video_ttl_days` are days of event time after which who is not met is forgotten; None: never.
    """

    partitions: int = 4
    max_users: int = 1_000_000
    max_videos: int = 200_000
    positives_per_day: float = 5000.0
    seed: int = 1
    objective: Objective = Objective()  # noqa: RUF009 - frozen
    signals: SignalTable = DEFAULT_SIGNALS
    exploration: float = EXPLORATION
    experiment: Experiment | None = None
    exact_below: int = EXACT_BELOW
    user_ttl_days: int | None = None
    video_ttl_days: int | None = None


class Engine:
    """Replica, users, models, index and the shards that this worker owns.

    Parameters
    ----------
    options : bounds, rate and seed
    origin : names this process in evidence blocks; two processes never share one
    """

    def __init__(self, options: EngineOptions, origin: bytes) -> None:
        self.options = options
        self.origin = origin
        self.popularity = Popularity(0)
        self.covisitation = Neighbours(0, COVISITATION, self.popularity)
        self.markov = Neighbours(0, MARKOV, self.popularity)
        self.mf = SequentialMF(0, options.seed)
        self.content = ContentModel(0)
        self.segments = Segments(0)
        self.models = Models(self.popularity, self.covisitation, self.markov, self.mf, self.content, self.segments)
        self.ranker = Ranker(options.seed)
        self.heads = Heads()
        #: Models of which each shard has a part, by the key of its row.
        self.shared: dict[bytes, Shared] = {rows.RANKER_KEY: self.ranker, rows.HEADS_KEY: self.heads}
        #: What follows the lists of an experiment's arms, if there is one.
        self.tally = None if options.experiment is None else Tally(options.experiment)
        if self.tally is not None:
            self.shared[rows.TALLY_KEY] = self.tally
        #: Of this process: `learned`, `refused`, and `no_candidate` where what was chosen could not have been listed.
        self.lessons: Counter[str] = Counter()
        #: Likewise of exposures: `learned`, `refused`, `late` (an event of one that is not waited for any more), `lost` (the user or
        #: the video has gone), and of lists: `listed`, `unanswered` (nothing followed), `unreadable`.
        self.exposures: Counter[str] = Counter()
        self.charts = Charts()
        #: First positives, and times shown, over all videos.
        self._plays, self._shown = 0.0, 0.0
        self.ticks_per_ms = options.positives_per_day / DAY_MS
        self.replica = Replica(
            {model.name: model for model in self.models},
            capacity=options.max_videos,
            partitions=options.partitions,
            clock_step_ms=max(1, int(CLOCK_STEP_TICKS * DAY_MS / options.positives_per_day)),
        )
        self.exploration = Exploration(options.exploration, options.seed, self.replica, self.models)
        self.users = Users(options.max_users, FACTORS, self._load_user)
        self.index = ItemIndex(FACTORS, options.max_videos)
        self.search = Search(self.replica, self.popularity)
        self.shards: dict[int, Shard] = {}
        #: Shards of other workers that this one has copies of.
        self.standbys: dict[int, Standby] = {}
        self._newest: deque[tuple[int, int]] = deque(maxlen=NEWEST)
        #: The same as an array, made when it is asked for.
        self._newest_rows: Int64Array | None = None
        #: Learned events whose evidence about videos of the owned shards is not applied yet: what all users share does not know them.
        self.awaited = 0

    def ticks(self, at_ms: Int64Array) -> Float64Array:
        """Event times (int64 ms) as ticks (float64): positives that the whole stream is expected to have had by then."""
        return np.asarray(at_ms, np.float64) * self.ticks_per_ms

    def now(self) -> float:
        """The stream's own present, in ticks: a replayed log is read as of its own time, not today's."""
        return float(self.ticks(np.array(self.replica.stream_ms)))

    def context(self, slot: int) -> Context:
        """What scoring knows of the user in `slot`."""
        history = self.users.history[slot]
        passed = self.users.passed[slot]
        opened = self.users.open_row[slot]
        if opened >= 0 and not self.users.open_liked[slot]:
            # They are about to go on from it.
            passed = np.append(opened, passed[passed != opened])[: len(passed)]
        behaviour = behaviour_in(self.users, slot, self.replica.stream_ms)
        segments = self.users.segments[slot]
        return Context(history[history >= 0], self.users.p[slot], self.now(), passed[passed >= 0], behaviour, segments)

    def context_before(self, slot: int, history: Int32Array, passed: Int32Array) -> Context:
        """What was known of the user in `slot` when these (int32, newest first, -1 for none) were their positives and passes."""
        segments = self.users.segments[slot]
        return Context(history[history >= 0], self.users.p[slot], self.now(), passed[passed >= 0], segments=segments)

    def stranger(self) -> Context:
        """What scoring knows of a user it has never met."""
        return Context(np.empty(0, np.int32), np.zeros(FACTORS, np.float32), self.now())

    def allowed(self, slot: int | None) -> BoolArray:
        """What may be listed for the user in `slot`, None for a stranger: bool, by row, the caller's own."""
        allowed: BoolArray = self.replica.active[: len(self.replica)].copy()
        if slot is not None:
            allowed[self.replica.find_codes(self.users.seen(slot))] = False
        return allowed

    def add_shard(self, shard: Shard) -> None:
        """Start owning a shard: its videos join the replica; its users come when they are asked for."""
        self.shards[shard.partition] = shard
        shard.horizon = horizon(shard.event_ms, self.options.user_ttl_days)
        if not shard.horizon:
            shard.swept = (0, None)
        shard.shared = self.shared
        share = 1.0 / self.options.partitions
        shard.ranker_quota, shard.heads_quota = (
            Quota(per_day * share, LESSONS_AT_FIRST * share)
            for per_day in (RANKER_LESSONS_PER_DAY, HEADS_LESSONS_PER_DAY)
        )
        clock_ms = self.replica.stream_ms
        # What its last owner has learned counts, as far as it was committed, and nothing else.
        for model in self.shared.values():
            model.put(shard.partition, np.zeros_like(model.part(shard.partition)))
        self._load_items(shard)
        if self.tally is not None:
            shard.recent = RecentEvents()
            if self.tally.recover(shard.partition):
                shard.taught.add(rows.TALLY_KEY)
        self.exploration.recall(self.replica.rows_in(shard.partition))
        # The clock goes on where the shard's last owner had it; what its rows say is for rows without a cut.
        self.replica.stream_ms = max(clock_ms, shard.clock_ms)

    def remove_shard(self, partition: int) -> None:
        """Stop owning a shard. Its users leave memory; its videos stay readable as they were."""
        shard = self.shards.pop(partition, None)
        if shard is not None:
            self.users.drop_partition(partition)
            shard.close()

    def holder(self, partition: int) -> Shard | Standby | None:
        """What has the rows of the shard's users here: the shard, or a copy of it."""
        return self.shards.get(partition) or self.standbys.get(partition)

    def add_standby(self, standby: Standby) -> None:
        """Answer for a shard that another worker owns, from its copy."""
        standby.user_ttl_days = self.options.user_ttl_days
        self.standbys[standby.partition] = standby

    def remove_standbys(self, partitions: Iterable[int]) -> None:
        """Forget the copies, where there are any, and their users; their videos stay readable as they were."""
        for partition in partitions:
            if self.standbys.pop(partition, None) is not None:
                self.users.drop_partition(partition)

    def reread_users(self, partition: int, changed: Sequence[bytes]) -> None:
        """Let go of users of a copy whose rows (by key) have changed: they are read from its store when they are asked for."""
        for key in changed:
            if not key.startswith((rows.USER, rows.ATTRIBUTES)):
                continue
            slot = self.users.peek_key(key[2:])
            if slot is not None and int(self.users.partition[slot]) == partition:
                self.users.drop(slot)

    def _load_user(self, users: Users, key: bytes, slot: int) -> bool:
        shard = self.holder(int(users.partition[slot]))
        if shard is None:
            return False
        about = shard.row_of_user(rows.ATTRIBUTES + key)
        if about is not None:
            known = rows.decode_attributes(about)
            users.segments[slot] = segments_of(known)
            users.erased_ms[slot] = -1 if known.erased_ms is None else known.erased_ms
        data = shard.row_of_user(rows.USER + key)
        if data is not None and shard.horizon and rows.user_day(data) < shard.horizon:
            # The row is there until it is swept, and says nothing any more.
            data = None
        if data is not None:
            rows.decode_user(data, users, slot, self.replica)
        # Of a user without events something may be known all the same.
        return data is not None or bool(users.segments[slot].any())

    def _load_items(self, shard: Shard) -> None:
        self.take_rows(list(shard.items_store.scan(b"")))

    def take_rows(self, changed: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Put rows of the items table in place, as a store or another owner's changelog has them; the last of a key counts.

        A row replaces what is served: factor steps of ours that its owner has not applied yet come back with its next row.
        """
        latest = dict(changed)

        def present(prefix: bytes) -> list[tuple[str, bytes]]:
            return [
                (key[len(prefix) :].decode(), value)
                for key, value in latest.items()
                if key.startswith(prefix) and value is not None
            ]

        marks = present(rows.DELETED)
        for video_id, mark in marks:
            rows.check_version(mark[0])
            if mark != rows.EXPIRED_MARK:
                self.unpublish(video_id)
        items = present(rows.ITEM)
        self.bring_back(self._expired_of([video_id for video_id, _ in items]))
        learned = rows.decode_items(items, self.replica)
        rows.decode_neighbours(present(rows.NEIGHBOURS), self.replica)
        videos = [(video_id, rows.decode_video_row(value)) for video_id, value in present(rows.VIDEO)]
        self.publish(sorted(videos, key=lambda entry: entry[1].published_ms or 0))
        # Last, for their records are kept.
        gone = self.replica.rows_of([video_id for video_id, mark in marks if mark == rows.EXPIRED_MARK])
        self.expire(gone[~self.replica.expired[gone]])
        self.refresh_index(learned)
        n = len(self.replica)
        self._plays, self._shown = (
            float(self.popularity.columns["plays"][:n].sum()),
            float(self.replica.counts[:n, SHOWN].sum()),
        )
        self._refresh_charts(len(learned))
        for key, model in self.shared.items():
            part = latest.get(key)
            if part is not None:
                model.put(*rows.decode_part(key, part))

    def publish(self, videos: Sequence[tuple[str, Video]]) -> Int32Array:
        """Put catalogue records in place, in order: metadata, content vectors, index. Returns their rows, int32.

        Raises
        ------
        StateFull
            Before anything of them is published.
        """
        rows = self.replica.rows_of([video_id for video_id, _ in videos])
        for row, (video_id, video) in zip(rows.tolist(), videos, strict=True):
            if not self.replica.described(row):
                since = self.replica.stream_ms if video.published_ms is None else video.published_ms
                self._newest.append((row, since))
                self._newest_rows = None
            self.replica.publish(video_id, video)
        self.content.publish(rows, [video for _, video in videos])
        self.refresh_index(rows)
        return rows

    def count_positives(self, rows: Int32Array, at_ms: Int64Array) -> None:
        """Positives of `rows` (int32, shape (m,)) at these event times (int64 ms, shape (m,)): popularity, the clock, the charts."""
        self.popularity.apply(rows, np.ones(len(rows)), self.ticks(at_ms), at_ms)
        self.replica.advance(at_ms)
        self._plays += len(rows)
        self._refresh_charts(len(rows))

    def _refresh_charts(self, positives: int) -> None:
        """Make the charts anew if they are due after so many more positives."""
        self.charts.note(positives)
        n = len(self.replica)
        if self.charts.due(n):
            self.charts.make(self.popularity, self.replica.active[:n], self.now())
            self.segments.weigh(self.now(), n)

    def count_shown(self, rows: Int32Array, at_ms: Int64Array) -> None:
        """Users went on from `rows` (int32, shape (m,)) at these event times (int64 ms, shape (m,))."""
        self.popularity.show(rows, self.ticks(at_ms))
        self._shown += len(rows)

    @property
    def plays(self) -> float:
        """First positives over all videos."""
        return self._plays

    @property
    def play_rate(self) -> float:
        """First positives a time shown, over all videos; 0 before anything was shown."""
        return self._plays / self._shown if self._shown else 0.0

    def unpublish(self, video_id: str) -> None:
        """Forget a video that the catalogue deleted, everywhere in this worker, in memory and in what is next written."""
        if not self.replica.knows(video_id):
            # Nothing can name it: a catalogue of many deletions is read without a pass over all lists for each.
            self.replica.mark_deleted(video_id)
            return
        row = self.replica.row_of(video_id)
        self._unlink(np.array([row], np.int32))
        self.replica.mark_deleted(video_id)
        for slot in self.users.forget_rows([row]):
            owned = self.shards.get(int(self.users.partition[slot]))
            if owned is not None:  # a copy's rows are its owner's to write
                owned.touch_users(self.users, np.array([slot], np.int32))

    def _unlink(self, gone: Int32Array) -> None:
        """Lists that name `gone` (int32, shape (m,)) change; what is kept of these rows beside the models' columns goes."""
        n = len(self.replica)
        of_gone = np.zeros(n + 1, np.bool_)
        of_gone[gone] = True
        named = np.zeros(n, np.bool_)
        for model in (self.covisitation, self.markov):
            # -1, for none, is the last one.
            named |= of_gone[model.columns["neighbour"][:n]].any(axis=1)
        for shard in self.shards.values():
            mine = np.flatnonzero(named & (self.replica.partition[:n] == shard.partition))
            shard.dirty_neighbours.add(mine.astype(np.int32))
            shard.lists_due = True
        self._plays -= float(self.popularity.columns["plays"][gone].sum())
        self._shown -= float(self.replica.counts[gone, SHOWN].sum())
        for row in gone.tolist():
            self.exploration.forget(row)
        self.index.remove(gone.tolist())
        self._newest = deque((entry for entry in self._newest if not of_gone[entry[0]]), maxlen=NEWEST)
        self._newest_rows = None

    def expire(self, gone: Int32Array) -> None:
        """Forget what was learned about the videos in `gone` (int32, shape (m,)); they are not recommended until they come back.

        What users did with them stays known of the users.
        """
        if len(gone):
            self._unlink(gone)
            self.replica.expire(gone)

    def bring_back(self, found: Int32Array) -> None:
        """The expired videos in `found` (int32, shape (m,)) are met again: with their records, and with nothing learned."""
        described = []
        for row, video_id in zip(found.tolist(), self.replica.ids_of(found.tolist()), strict=True):
            video = self.replica.video(row)
            if video is None:
                self.replica.bring_back(row)
            else:
                described.append((video_id, video))
        if described:
            self.publish(described)
        self.refresh_index(found)

    def _expired_of(self, video_ids: Sequence[str]) -> Int32Array:
        if not self.replica.expired.any():
            return np.empty(0, np.int32)
        found = np.array([row for each in video_ids if (row := self.replica.find(each)) is not None], np.int32)
        expired: Int32Array = found[self.replica.expired[found]]
        return expired

    def newest_rows(self) -> Int32Array:
        """Rows that entered the catalogue last, however long ago, oldest first; what exploration draws from."""
        rows: Int32Array = self._newest_entries()[0].astype(np.int32)
        return rows

    def _newest_entries(self) -> Int64Array:
        if self._newest_rows is None:
            self._newest_rows = np.array(self._newest, np.int64).reshape(-1, 2)
        return self._newest_rows.T

    def new_rows(self) -> Int32Array:
        """Rows that entered the catalogue lately, oldest first; what may be ranked before anybody has played it."""
        rows, since_ms = self._newest_entries()
        fresh: Int32Array = rows[since_ms >= self.replica.stream_ms - NEW_FOR_MS].astype(np.int32)
        return fresh

    def refresh_index(self, touched: Int32Array) -> None:
        """Tell the index that vectors of these rows changed, or that they may now be recommended."""
        active = self.replica.active[touched]
        self.index.mark(touched[active])
        self.index.remove(touched[~active].tolist())

    def totals(self) -> Mapping[str, int]:
        """Running totals of the owned shards, exact with their state."""
        summed: dict[str, int] = {}
        for shard in self.shards.values():
            for name, count in shard.totals.items():
                summed[name] = summed.get(name, 0) + count
        return summed
