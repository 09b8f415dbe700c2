"""What the heads are told and what they say: one way to make their inputs, for lists, for the log of lists and for lessons.

Flows in: an engine, a user's behaviour, and described videos. Flows out: inputs. Pure reads of the engine.
"""

from online_models.base import Behaviour
from online_models.features import Described
from online_models.heads import INPUTS, Columns
from state.behaviour import IMPRESSION, LIKED, WATCHED
from state.engine import Engine
from state.types import Float32Array, Int32Array
from topics.evidence import SHOWN
from topics.recommendations import hash_names

_COLUMNS = Columns(impressions=IMPRESSION, shown=SHOWN, likes=LIKED, watches=WATCHED)


#: Names the inputs in the log of lists.
INPUT_NAMES = hash_names(INPUTS)


def inputs_of(engine: Engine, rows: Int32Array, behaviour: Behaviour, described: Described) -> Float32Array:
    """Inputs of the heads for `rows` (int32, shape (m,)) with their features, at the first place; float32, shape (m, 44)."""
    plays, length = engine.popularity.columns["plays"], engine.content.columns["duration"]
    counts = engine.replica.counts
    return engine.heads.inputs(described, rows, counts, _COLUMNS, plays, length, behaviour, engine.play_rate)
