"""Experiments: which arm a user is in, and how the arm's lists are made.

Flows in: a definition that was checked, and ids of users. Flows out: arms, and buckets of users. Always holds: a user is in the same
arm in every process, whatever partition they are in; when an arm's share is changed, or arms come and go, users move to it or from it
and between no two others.

Each arm draws a number for a user by a hash, and the user goes to the largest of share / -log(number): weighted rendezvous hashing
(Schindelhauer and Schomaker 2005). Intervals of one hash would move users of all arms that stand behind the one that was changed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec
import xxhash

from state.objective import Objective

#: Groups of users within an arm, whose figures are compared to say how sure the arm's are: few enough to keep sums for each, and
#: enough for intervals that are hardly wider than with a group for each user.
BUCKETS = 64

#: A 64-bit hash as a number between 0 and 1, neither of them.
_STEP = 2.0**-53


@dataclass(frozen=True)
class Arm:
    """One way to make lists.

    Attributes
    ----------
    name : in answers, in the log of lists and in metrics
    share : of the users, before it is divided by the sum of all shares
    preset : fields of a list request that a request of a user in the arm starts from
    objective : what lists are ordered by; None: as the worker is told
    without : features that the ranker does without
    """

    name: str
    share: float
    preset: Mapping[str, Any] = field(default_factory=dict)
    objective: Objective | None = None
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """Arms, the first of which is the control.

    Attributes
    ----------
    name : of the experiment
    salt : what users are hashed with: another one deals them out anew
    arms : two or more
    """

    name: str
    salt: str
    arms: tuple[Arm, ...]

    @cached_property
    def id(self) -> int:
        """A number for all that is defined, below 2**53: with any change it is another experiment, whose figures begin at zero."""
        defined = msgspec.json.encode(self, order="deterministic")
        return (xxhash.xxh3_64_intdigest(defined) >> 11) or 1

    @cached_property
    def _prefixes(self) -> list[tuple[float, bytes]]:
        return [(arm.share, f"{self.salt}\0{arm.name}\0".encode()) for arm in self.arms]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {arm.name: place for place, arm in enumerate(self.arms)}

    def place_of(self, user: bytes) -> int:
        """Place, in `arms`, of the arm of the user with this id (UTF-8)."""
        best, place = -1.0, 0
        for at, (share, prefix) in enumerate(self._prefixes):
            drawn = ((xxhash.xxh3_64_intdigest(prefix + user) >> 11) + 0.5) * _STEP
            score = share / -math.log(drawn)
            if score > best:
                best, place = score, at
        return place

    def arm_of(self, user_id: str) -> Arm:
        """The user's arm."""
        return self.arms[self.place_of(user_id.encode(errors="surrogatepass"))]

    def place_named(self, name: str) -> int | None:
        """Place of the arm with this name, None if there is none."""
        return self._places.get(name)

    def bucket_of(self, user: bytes) -> int:
        """Bucket, below BUCKETS, of the user with this id (UTF-8); independent of the arm and of the partition."""
        # With another seed, or the bucket would say something of the arm.
        return xxhash.xxh3_64_intdigest(self.salt.encode() + b"\0" + user, seed=1) % BUCKETS
