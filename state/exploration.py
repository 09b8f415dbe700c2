"""Which unproven video takes the exploring place of a list: Thompson sampling within a budget, and a guaranteed minimum.

Flows in: a list's user, its rows and what may be in it. Flows out: the row that explores, or none. Always holds: in the mean no more
than `share` of the lists explore, by one place; a video that is owed its minimum of offers comes to its turn whatever its taste and
whatever its record says, so that nobody can show it to death; equal seeds and equal lists in the same order explore alike.

The lists made and the users offered a video are counted for this process alone: they are no part of the durable state, and all that
making a list writes. What a shard's rows had been shown before this process took it over counts as offered. Bound: 9 bytes a row.
"""

import numpy as np

from online_models.base import Context
from online_models.counters import uniforms
from online_models.features import Models
from state.growth import grown_size
from state.replica import Replica
from state.types import BoolArray, Float32Array, Float64Array, Int32Array, Int64Array, UInt8Array, UInt64Array
from topics.evidence import SHOWN

#: Share of the lists that explore. The last of ten places has up to a fourteenth of a list's recall: this costs a third of a percent.
EXPLORATION = 0.05
#: A video with so many first positives is proven, and owed nothing more. It stays in the draw, for those for whom it is not ranked,
#: up to as many as the ranker takes to know one without metadata.
PROVEN_PLAYS, RANKED_PLAYS = 5, 20
#: It is proven bad when at the mean rate it would have so many, and has fewer than PROVEN_PLAYS. Far more, as the mean is of videos
#: that were listed for those who like them: what nothing is known of is offered to anybody, few of whom would.
EXPECTED_PLAYS = 30.0
#: Users with a history to whom a video is owed to be offered before its record can speak against it.
LEAST_OFFERS = 20
#: Share of exploring places that go to those in turn who are owed offers, of whatever taste.
TURN_SHARE = 0.25
#: Cosine of a video with the user's content vector from which it is of their taste, and what counts as one where those who liked
#: it have liked one of the user's last so many too.
TASTE = 0.25
NAMED, NAMED_BY = 0.5, 10
#: Times shown worth of the prior: as rates differ between videos of two logs (beta-binomial: 4.8 and 8.5 on the first 30%).
PRIOR = 5.0
#: A positive's odds grow by this a cosine (logistic regression of positives of young videos against random ones: 2.9 and 5.8 on the
#: first 30% of two logs), from where the cosine of a random video with a user is.
FIT, FIT_FROM = 4.0, 0.1
#: Means are kept away from 0 and 1, where a Beta distribution ends.
LEAST_RATE = 0.01
#: Rows looked at for one in turn, and how often in one list: a catalogue of proven videos is passed over in a few lists.
SCAN, SCANS = 2_048, 4
#: Lists whose draws are made at once.
BLOCK = 1_024
#: Stands for a user without a history, or unknown: anybody can make them up, so what they are offered counts for nothing.
NOBODY = 0

#: Keeps these draws apart from others of the same seed.
_STREAM = 0x6578706C6F7265


class Exploration:
    """What one process explores.

    Parameters
    ----------
    share : of lists that explore, 0 to 1; 0: none
    seed : of the draws
    replica, models : the videos, as they are served

    Attributes
    ----------
    lists : made so far
    """

    def __init__(self, share: float, seed: int, replica: Replica, models: Models) -> None:
        self.share = share
        self.lists = 0
        self._seed = seed
        self._replica = replica
        self._models = models
        #: (rows,) users offered it, told apart by 6 bits of their hashes: a bit each, and how many bits are set
        self._users: UInt64Array = np.zeros(0, np.uint64)
        self._offers: UInt8Array = np.zeros(0, np.uint8)
        #: The row whose turn is next.
        self._turn = 0
        self._draws: Float64Array = np.empty(0)

    def offers(self, row: int) -> int:
        """Users with a history that the row's video was offered to, as far as they are told apart: at most 64."""
        return int(self._offers[row]) if row < len(self._offers) else 0

    def forget(self, row: int) -> None:
        """The row's video was deleted."""
        if row < len(self._offers):
            self._users[row], self._offers[row] = 0, 0

    def recall(self, rows: Int32Array) -> None:
        """Take what is on record for `rows` (int32, shape (m,)) as offered: their shard comes from another process."""
        self._grow(len(self._replica))
        shown = np.minimum(self._replica.counts[rows, SHOWN], LEAST_OFFERS).astype(np.uint8)
        self._offers[rows] = np.maximum(self._offers[rows], shown)

    def choose(
        self, context: Context, allowed: BoolArray, listed: Int32Array, newest: Int32Array, rate: float, user: int
    ) -> int | None:
        """The row that explores in the next list, if it does; counts the list, and the offer.

        Parameters
        ----------
        allowed : bool, shape (rows,); what may be in the list
        listed : int32, shape (n,); rows that are in it anyway
        newest : int32, shape (m,); rows that came last: of these the draw is
        rate : positives a time shown, over all videos; 0 while nothing is known
        user : hash of the user's id; NOBODY without a history
        """
        if self.share <= 0.0:
            return None
        drawn = self._next_draw()
        if drawn >= self.share:
            return None
        return self._draw(drawn < TURN_SHARE * self.share, context, allowed, listed, newest, rate, user)

    def choose_for(
        self, context: Context, allowed: BoolArray, listed: Int32Array, newest: Int32Array, rate: float, user: int
    ) -> int | None:
        """A row for a place that explores on request; counts the offer. Parameters as of `choose`."""
        return self._draw(self._next_draw() < TURN_SHARE, context, allowed, listed, newest, rate, user)

    def _draw(
        self,
        turn: bool,
        context: Context,
        allowed: BoolArray,
        listed: Int32Array,
        newest: Int32Array,
        rate: float,
        user: int,
    ) -> int | None:
        """What is next in turn, if that is what is wanted, or the largest draw; counts the offer."""
        self._grow(len(allowed))
        row = None
        if turn:
            row = self._in_turn(allowed, listed, user)
        if row is None:
            row = self._largest_draw(context, allowed, listed, newest, rate)
        if row is not None and self._counts(row, user):
            self._users[row] |= _bit(user)
            self._offers[row] += 1
        return row

    def _next_draw(self) -> float:
        """A number from 0 to 1 for the next list, of its place in the process's lists alone."""
        place = self.lists % BLOCK
        if place == 0:
            self._draws = uniforms(self._seed ^ _STREAM, np.arange(self.lists, self.lists + BLOCK, dtype=np.uint64))
        self.lists += 1
        return float(self._draws[place])

    def _grow(self, rows: int) -> None:
        if rows > len(self._offers):
            more = grown_size(rows) - len(self._offers)
            self._users = np.pad(self._users, (0, more))
            self._offers = np.pad(self._offers, (0, more))

    def _counts(self, row: int, user: int) -> bool:
        """Whether an offer to the user would be to another one than before."""
        return user != NOBODY and not self._users[row] & _bit(user)

    def _in_turn(self, allowed: BoolArray, listed: Int32Array, user: int) -> int | None:
        """The next row that is owed offers. Turns go on with offers that count: who asks again and again takes no turn."""
        n, at = len(allowed), self._turn % max(len(allowed), 1)
        passed = True
        for _ in range(SCANS):
            end = min(at + SCAN, n)
            owed = at + np.flatnonzero(
                self._replica.active[at:end]
                & (self._offers[at:end] < LEAST_OFFERS)
                & (self._models.popularity.columns["plays"][at:end] < PROVEN_PLAYS)
            )
            may = owed[allowed[owed] & ~_among(owed, listed)]
            if len(may):
                row = int(may[0])
                if self._counts(row, user):
                    self._turn = row + 1
                return row
            # What is owed to others stays next.
            passed &= not len(owed)
            at = end if end < n else 0
            if passed:
                self._turn = at
        return None

    def _largest_draw(
        self, context: Context, allowed: BoolArray, listed: Int32Array, newest: Int32Array, rate: float
    ) -> int | None:
        """Of the newest that are unproven and may please, those that are owed offers before others, the largest draw."""
        rows = newest[allowed[newest] & ~_among(newest, listed)]
        plays = self._models.popularity.columns["plays"][rows]
        offers = self._offers[rows]
        # Who was offered it and did not come is not on record where no impressions are sent.
        shown = np.maximum(self._replica.counts[rows, SHOWN], offers)
        owed = (offers < LEAST_OFFERS) & (plays < PROVEN_PLAYS)
        bad = (plays < PROVEN_PLAYS) & (shown * rate >= EXPECTED_PLAYS)
        unproven = owed | ((plays < RANKED_PLAYS) & ~bad)
        cosine, may = self._fit(context, rows, plays)
        may &= unproven
        if (may & owed).any():
            may &= owed
        if not may.any():
            return None
        rows, plays, shown, cosine = rows[may], plays[may], shown[may], cosine[may]
        rng = np.random.Generator(np.random.PCG64([self._seed, self.lists]))
        # A Beta draw is a share of two Gamma draws, which numpy makes much faster; one of them is never small.
        liked, passed = (rng.standard_gamma(parameter) for parameter in posterior(rate, cosine, plays, shown))
        return int(rows[int(np.argmax(liked / (liked + passed)))])

    def _fit(self, context: Context, rows: Int32Array, plays: Float64Array) -> tuple[Float32Array, BoolArray]:
        """Cosines of `rows` with the user's taste, or what stands for them; and which of them may please.

        May please: what is of the user's taste, by content or by who has liked it, and what nothing is known of. Of a user without a
        history nothing is known.
        """
        content = self._models.content
        cosine = np.empty(len(rows), np.float32)
        vector = content.user_vector(context.history)
        content.scores(vector, cosine, rows)
        unknown = cosine == 0.0
        if vector.any():
            unknown[unknown] = ~content.columns["content"][rows[unknown]].any(axis=1)
        cosine[unknown] = FIT_FROM
        if len(context.history):
            liked = plays > 0
            if liked.any():
                together = np.zeros(len(content.columns["author"]), np.bool_)
                neighbours = self._models.covisitation.columns["neighbour"][context.history[:NAMED_BY]]
                together[neighbours[neighbours >= 0]] = True
                cosine[together[rows]] = np.maximum(cosine[together[rows]], NAMED)
            unknown &= ~liked
        return cosine, unknown | (cosine >= TASTE)


def posterior(
    rate: float, cosine: Float32Array, plays: Float64Array, shown: Int32Array
) -> tuple[Float64Array, Float64Array]:
    """Parameters of Beta distributions of play rates, float64, shape (m,), finite and above 0.

    The prior is worth PRIOR times shown, with the odds of the mean rate times exp(FIT * (cosine - FIT_FROM)).

    Parameters
    ----------
    rate : positives a time shown, over all videos
    cosine : float32, shape (m,); with the user's taste
    plays : float64, shape (m,)
    shown : int32, shape (m,)
    """
    mean = min(max(rate, LEAST_RATE), 1.0 - LEAST_RATE)
    odds = mean / (1.0 - mean) * np.exp(FIT * (cosine.astype(np.float64) - FIT_FROM))
    prior = np.clip(odds / (1.0 + odds), LEAST_RATE, 1.0 - LEAST_RATE)
    return PRIOR * prior + plays, PRIOR * (1.0 - prior) + np.maximum(shown - plays, 0.0)


def _bit(user: int) -> np.uint64:
    return np.uint64(1 << (user >> 58 & 63))


def _among(rows: Int32Array | Int64Array, listed: Int32Array) -> BoolArray:
    """Which of the rows are listed."""
    found: BoolArray = (rows[:, None] == listed).any(axis=1)
    return found
