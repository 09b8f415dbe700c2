"""A trial of a configuration on a log: its list for each of some targets, before they are learned, by the code that serves.

Flows in: micro-batches of a canonical replay, before anything of them is in the state. Flows out: the place of each target in the
configuration's list. Always holds: nothing that is learned changes by it; two trials of one log have the same targets in the same
order, whatever their configurations call positive, for the first trial chooses them and others are told. Bound: 100 bytes a target,
of which there are at most as many as asked for, and 8 a listed video.

What counts is what `agents.scoring` counts: first positives, ranked without any event of their own row of the log; a target that
nobody could list is a miss.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xxhash

from agents.events import Events
from agents.scoring import is_first, row_start, situation
from online_models.counters import in_partition, uniforms
from state.arms import ABSENT, place_in
from state.engine import Engine
from state.exploration import PROVEN_PLAYS
from state.lists import Wish, rank_wish
from state.shard import Shard
from state.types import Int64Array, UInt8Array

#: Users with fewer events than this before the ranked one are cold.
COLD_BELOW = 3
#: Records a shard that are learned at once, and after which what all users share knows of them: a worker that is up to date is behind
#: by a quarter of a second, which is fewer records, and each window costs. The canonical order's own window is for backlogs.
SHARD_WINDOW = 100
#: Keeps the draw of targets apart from others of the same seed.
SALT = 0x7121A1


class Target(NamedTuple):
    """A first positive that lists are made for.

    Attributes
    ----------
    partition, offset : of its event
    user : hash of the user's id, which tells users apart
    at_ms : event time
    cold : whether the user had fewer than COLD_BELOW events before
    new, young : whether the video was not known yet; whether it was, and had had fewer than PROVEN_PLAYS plays
    """

    partition: int
    offset: int
    user: int
    at_ms: int
    cold: bool
    new: bool
    young: bool


class Trial:
    """Ranks given targets.

    Parameters
    ----------
    wish : what each list is asked for with
    targets : of an earlier trial of the same log

    Attributes
    ----------
    places : place of each target in its list, from 0; ABSENT where it is not there, or could not be ranked
    ranked : targets that were ranked; others' events were refused
    covered : hashes of the videos that were listed
    """

    def __init__(self, wish: Wish, targets: Sequence[Target]) -> None:
        self._wish = wish
        self.places = [ABSENT] * len(targets)
        self.ranked = 0
        self.covered: set[int] = set()
        self._due = {(target.partition, target.offset): number for number, target in enumerate(targets)}

    def score(self, engine: Engine, shard: Shard, events: Events, liked: UInt8Array) -> None:  # noqa: ARG002 - of this configuration
        """Rank the targets among a micro-batch's events."""
        for e, offset in enumerate(events.offsets.tolist()):
            number = self._due.get((shard.partition, offset))
            if number is not None:
                self.places[number] = self._place(engine, shard, events, e)

    def _place(self, engine: Engine, shard: Shard, events: Events, e: int) -> int:
        slot, row = int(events.slots[e]), int(events.rows[e])
        context, allowed = situation(engine, slot, row)
        listed = rank_wish(engine, context, allowed, _name(engine, slot), shard.partition, self._wish)
        self.ranked += 1
        self.covered.update(engine.replica.hashes[listed].tolist())
        return place_in(listed, row)


class Choice:
    """Which first positives become targets.

    Parameters
    ----------
    most : how many at most, about evenly spread over what is left of the log when the first of them comes
    warmup : share of the interactions before that
    since_ms : only those that arrived from then on
    """

    def __init__(self, most: int, warmup: float = 0.3, since_ms: int | None = None) -> None:
        self.left = most
        #: Interactions that there are; to be set before the first of them.
        self.of = 0
        self._warmup, self._since_ms = warmup, since_ms
        self._events = self._positives = 0

    def drawn(self, seed: int, partition: int, events: Events, found: Int64Array) -> Int64Array:
        """Which of a micro-batch's positives (`found`, int64, shape (m,)) may be targets.

        By a hash of their places in the log: neither who nor what it is makes it more likely.
        """
        chosen = uniforms(seed ^ SALT, in_partition(partition, events.offsets[found])) < self._rate()
        if self._since_ms is not None:
            chosen &= events.arrived_ms[found] >= self._since_ms
        self._events += len(events.offsets)
        self._positives += len(found)
        return found[chosen][: self.left]

    def _rate(self) -> float:
        """Share of the next positives to take, so that `most` will have been taken at the end; 0 in the warm-up."""
        if self._events < self._warmup * self.of:
            return 0.0
        # Before anything is known of them, every event counts as a positive: rather too few at first than all at once.
        expected = (self.of - self._events) * (self._positives / self._events if self._events else 1.0)
        return self.left / max(expected, 1.0)


class ChoosingTrial(Trial):
    """The first trial of a log, which chooses the targets."""

    def __init__(self, wish: Wish, choice: Choice) -> None:
        super().__init__(wish, [])
        self._choice = choice
        self.targets: list[Target] = []

    def score(self, engine: Engine, shard: Shard, events: Events, liked: UInt8Array) -> None:
        """Choose targets among a micro-batch's positives, and rank them."""
        drawn = self._choice.drawn(engine.options.seed, shard.partition, events, np.flatnonzero(liked))
        for e in drawn.tolist():
            if is_first(engine, events, e, liked):
                self.targets.append(_target(engine, shard, events, e))
                self.places.append(self._place(engine, shard, events, e))
                self._choice.left -= 1


def _target(engine: Engine, shard: Shard, events: Events, e: int) -> Target:
    users, replica = engine.users, engine.replica
    slot, row = int(events.slots[e]), int(events.rows[e])
    before = int(users.counts[slot].sum()) + int((events.slots[: row_start(events, e)] == slot).sum())
    new = not replica.described(row) and not bool(replica.counts[row].any())
    young = not new and bool(engine.popularity.columns["plays"][row] < PROVEN_PLAYS)
    user = xxhash.xxh3_64_intdigest(users.key_of(slot))
    return Target(shard.partition, int(events.offsets[e]), user, int(events.at_ms[e]), before < COLD_BELOW, new, young)


def _name(engine: Engine, slot: int) -> str:
    return engine.users.key_of(slot).decode(errors="surrogatepass")
