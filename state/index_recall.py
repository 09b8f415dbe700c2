"""What the graph index misses: now and then somebody's candidates as it finds them, beside the exact order.

Flows in: an engine. Flows out: the mean recall of the latest samples. Always holds: nothing is changed by looking; whose lists are
looked at is drawn with the seed. A sample costs a search and one pass over all vectors, three milliseconds with 100,000 videos.
"""

from collections import deque

import numpy as np

from state.engine import Engine
from state.types import BoolArray, Float32Array, Int32Array

#: Rows of a list that is compared, as many as the ranking takes from the factors.
AT = 100
#: Samples that the mean is of.
LATEST = 50
#: Slots drawn in search of somebody with a history: among many strangers a sample may be left out.
TRIES = 20


def recall(found: Int32Array, scores: Float32Array, allowed: BoolArray, n: int) -> float:
    """Share of the exact best `n` that `found` names; what ties with the last of them counts.

    Parameters
    ----------
    scores : float32, shape (rows,); exact, of every row
    allowed : bool, shape (rows,); what may be found
    """
    usable = scores[allowed]
    n = min(n, len(usable))
    last = np.partition(usable, -n)[-n]
    named = np.unique(found)
    return min(1.0, float((allowed[named] & (scores[named] >= last)).sum()) / n)


class IndexRecall:
    """Recall@100 of the index over the latest samples.

    Parameters
    ----------
    seed : of the draw
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._latest: deque[float] = deque(maxlen=LATEST)

    @property
    def mean(self) -> float:
        """Of the latest samples; NaN before there are any."""
        return float(np.mean(self._latest)) if self._latest else float("nan")

    def sample(self, engine: Engine) -> float | None:
        """Look at one list; None where there is no graph, or nobody with a history was drawn."""
        users = engine.users
        allowed: BoolArray = engine.replica.active[: len(engine.replica)]
        if not len(engine.index) or not len(users) or not allowed.any():
            return None
        slots = self._rng.integers(0, users.slots, TRIES)
        known = slots[(users.history[slots, 0] >= 0) & (users.partition[slots] >= 0)]
        if not len(known):
            return None
        context = engine.context(int(known[0]))
        z = engine.mf.user_vector(context.p, context.history)
        columns = engine.mf.columns
        found = engine.index.search(z, AT, columns["q"], columns["b"])
        scores = np.empty(len(allowed), np.float32)
        engine.mf.scores(z, scores)
        share = recall(found, np.nan_to_num(scores, nan=-np.inf), allowed, AT)
        self._latest.append(share)
        return share
