"""What learns: numpy and numba models without Kafka, Faust, clock or global random state.

`MODELS` names every item model and how to make one; a model that is missing here fails the contract tests.
"""

from collections.abc import Callable, Mapping

from online_models.base import ItemModel
from online_models.content import ContentModel
from online_models.neighbours import COVISITATION, MARKOV, Neighbours
from online_models.popularity import Popularity
from online_models.segments import Segments
from online_models.sequential_mf import SequentialMF

MODELS: Mapping[str, Callable[[int, int], ItemModel]] = {
    "popularity": lambda capacity, _seed: Popularity(capacity),
    "covisitation": lambda capacity, _seed: Neighbours(capacity, COVISITATION),
    "markov": lambda capacity, _seed: Neighbours(capacity, MARKOV),
    "sequential_mf": lambda capacity, seed: SequentialMF(capacity, seed),
    "content": lambda capacity, _seed: ContentModel(capacity),
    "segments": lambda capacity, _seed: Segments(capacity),
}
"""Model name to a function of (capacity, seed)."""
