"""What the heads are told and what they say: one way to make their inputs, for lists, for the log of lists and for lessons.

Flows in: an engine, a user's behaviour, and described videos. Flows out: inputs. Pure reads of the engine.
"""

import numpy as np

from online_models.features import Described
from online_models.heads import Behaviour, Columns
from state.engine import Engine
from state.types import Float32Array, Int32Array
from topics.evidence import SHOWN
from topics.interactions import event_code

IMPRESSION, LIKED, WATCHED = event_code("impression"), event_code("like"), event_code("watch")
_COLUMNS = Columns(impressions=IMPRESSION, shown=SHOWN, likes=LIKED, watches=WATCHED)


def behaviour_of(counts: Int32Array, positives: int, last_ms: int, at_ms: int) -> Behaviour:
    """A user's behaviour.

    Parameters
    ----------
    counts : int32, shape (kinds,); accepted events by kind
    positives : first positives
    last_ms, at_ms : times of the latest event, 0 for none, and of what is asked for
    """
    # A client that does not say what it shows says at least what was played.
    tries = int(counts[IMPRESSION]) or int(counts.max())
    idle_s = max(at_ms - last_ms, 0) / 1000 if last_ms > 0 else -1.0
    return Behaviour(float(tries), float(positives), float(counts[LIKED]), float(counts[WATCHED]), idle_s)


def behaviour_in(engine: Engine, slot: int | None, at_ms: int | None = None) -> Behaviour:
    """Behaviour of the user in `slot`, None for a stranger, as of `at_ms`, or else of the stream's present."""
    if slot is None:
        return Behaviour()
    users = engine.users
    positives = int((users.seen(slot) & np.uint64(1)).sum())
    return behaviour_of(users.counts[slot], positives, int(users.last_ms[slot]), at_ms or engine.replica.stream_ms)


def inputs_of(
    engine: Engine,
    rows: Int32Array,
    behaviour: Behaviour,
    described: Described,
    places: Float32Array | None = None,
) -> Float32Array:
    """Inputs of the heads for `rows` (int32, shape (m,)); float32, shape (m, 44).

    Parameters
    ----------
    described : their features
    places : float32, shape (m,); log of the place in a list; None: all are 0
    """
    plays, length = engine.popularity.columns["plays"], engine.content.columns["duration"]
    counts = engine.replica.counts
    return engine.heads.inputs(described, rows, counts, _COLUMNS, plays, length, behaviour, engine.play_rate, places)
