"""What the heads are told and what they say: one way to make their inputs, for lists, for the log of lists and for lessons.

Flows in: an engine, a user's behaviour, and described videos. Flows out: inputs. Pure reads of the engine.
"""

from online_models.base import Behaviour
from online_models.features import Described
from online_models.heads import Columns
from state.behaviour import IMPRESSION, LIKED, WATCHED
from state.engine import Engine
from state.types import Float32Array, Int32Array
from topics.evidence import SHOWN

_COLUMNS = Columns(impressions=IMPRESSION, shown=SHOWN, likes=LIKED, watches=WATCHED)


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
