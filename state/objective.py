"""What a list is ordered by: weights of the ranker's and the heads' log-odds, as an operator writes them.

Flows in: text such as `choice=1,like=0.5,skip=-1`. Flows out: one score a candidate. Always holds: what is not named counts nothing,
and weights are finite.
"""

import math
from dataclasses import dataclass

import numpy as np

from online_models.heads import HEADS
from state.types import Float32Array

CHOICE = "choice"
NAMES = (CHOICE, *HEADS)
#: The ranker alone: what is chosen next.
DEFAULT = "choice=1"


class BadObjective(ValueError):
    """The text is no objective; the message says what is wrong and what there is."""


@dataclass(frozen=True)
class Objective:
    """Weights of log-odds.

    Attributes
    ----------
    choice : of the ranker: which candidate will be chosen next
    heads : of each of `HEADS`, in order
    """

    choice: float = 1.0
    heads: tuple[float, ...] = (0.0,) * len(HEADS)

    @classmethod
    def parse(cls, text: str) -> "Objective":
        """Read `name=weight,...`; names are `choice` and those of `HEADS`. Raises BadObjective."""
        weights = dict.fromkeys(NAMES, 0.0)
        for part in text.split(","):
            name, equals, number = (piece.strip() for piece in part.partition("="))
            try:
                weight = float(number)
            except ValueError:
                weight = math.nan
            if name not in weights or not equals or not math.isfinite(weight):
                raise BadObjective(f"{part.strip()!r} is no name=weight with a name of {', '.join(NAMES)}")
            weights[name] = weight
        if not any(weights.values()):
            raise BadObjective("all weights are 0: nothing would be ordered")
        return cls(weights[CHOICE], tuple(weights[name] for name in HEADS))

    @property
    def needs_heads(self) -> bool:
        """Whether any head counts."""
        return any(self.heads)

    def combine(self, choice: Float32Array, logits: Float32Array) -> Float32Array:
        """Scores of m candidates.

        Parameters
        ----------
        choice : float32, shape (m,); minus infinity for what must not be listed, which stays
        logits : float32, shape (m, 5)
        """
        scores = logits @ np.array(self.heads, np.float32)
        listed = np.isfinite(choice)
        scores[listed] += np.float32(self.choice) * choice[listed]
        scores[~listed] = -np.inf
        return scores.astype(np.float32)
